"""IPLD and UnixFS: content identifiers and the formats they name. Pure codecs: bytes in, values out, no I/O."""
