"""The gateways of a cluster's DataNodes: any of them gives any file by its CID, whoever has the blocks."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request

import pytest

from twinfs.client import sync
from twinfs.common.ipld.cid import RAW, Cid

from ..support.cluster import Cluster, wait_until

MIB = 1 << 20


def get(url: str, accept: str = "*/*") -> bytes:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def test_files_put_by_path_are_found_by_hash(cluster: Cluster) -> None:
    """Blocks of 1 MiB in one copy each, so that no node has all of the file."""
    data = os.urandom(6 * MIB + 77)
    with sync.FileSystem.connect(cluster.url, replication=1, block_bytes=MIB) as filesystem:
        filesystem.write_bytes("/big", data)
        filesystem.write_bytes("/small", b"small content")
    small = Cid.of(RAW, b"small content")
    leaves = [data[start : start + MIB] for start in range(0, len(data), MIB)]
    for node in cluster.datanodes:
        base = f"http://{node.facts['http']}"
        assert get(f"{base}/ipfs/{small}") == b"small content"
        for leaf in leaves:
            assert get(f"{base}/ipfs/{Cid.of(RAW, leaf)}") == leaf
    # Delegated routing says who has a leaf; that node gives it at once.
    for cid in (small, Cid.of(RAW, data[:MIB])):
        answer = json.loads(get(f"{cluster.url}/routing/v1/providers/{cid}"))
        (record,) = answer["Providers"]
        _, _, host, _, port, _ = record["Addrs"][0].split("/")
        raw = get(f"http://{host}:{port}/ipfs/{cid}?format=raw")
        assert Cid.of(RAW, raw) == cid
        peers = json.loads(get(f"{cluster.url}/routing/v1/peers/{record['ID']}"))["Peers"]
        assert peers == [record]
    missing = Cid.of(RAW, b"nobody has this")
    assert json.loads(get(f"{cluster.url}/routing/v1/providers/{missing}")) == {"Providers": []}
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(f"http://{cluster.datanodes[0].facts['http']}/ipfs/{missing}")
    assert caught.value.code == 404
    caught.value.close()
    for bad in ("providers/x", "peers/x", "ipns/x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{cluster.url}/routing/v1/{bad}")
        assert caught.value.code == 400
        caught.value.close()


def test_content_that_is_deleted_is_not_found_any_more(cluster: Cluster) -> None:
    data = os.urandom(2 * MIB)
    cid = Cid.of(RAW, data[:MIB])
    with sync.FileSystem.connect(cluster.url, replication=2) as filesystem:
        filesystem.write_bytes("/gone", data)
        url = f"{cluster.url}/routing/v1/providers/{cid}"
        assert len(json.loads(get(url))["Providers"]) == 2
        filesystem.delete("/gone")
        wait_until(lambda: not json.loads(get(url))["Providers"], "that it is gone", 60.0)
