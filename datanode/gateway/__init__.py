"""The IPFS gateway of a DataNode: trustless (raw blocks, CAR), paths (files, folders, tar), names."""
