"""Hadoop's FileSystem over webhdfs://: names, checksums, two users told apart, renames with options, tokens."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from .conftest import Shell

pytestmark = pytest.mark.filterwarnings("default")
NAMES = [
    *("a b", "100%", "%41", "a+b", "#x", "q?x", "s;x", "a&b=c", "😀", "e\u0301", "日本"),
    *("[x]{y}*", "q\"q'", "back\\slash", "tilde~", "@at", "!$^", "long" * 60),
]


@pytest.fixture(scope="module")
def root(shell: Shell) -> Any:
    files = shell.files()
    files.mkdirs(shell.path("/api"))
    return files


def failure(call: Any) -> str:
    """The class and message of the Java exception that *call* ends with."""
    from py4j.protocol import Py4JJavaError

    with pytest.raises(Py4JJavaError) as caught:
        call()
    return str(caught.value.java_exception.toString())


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_every_place(shell: Shell, root: Any, name: str) -> None:
    """In paths, in redirects, as a destination, in listings."""
    path = f"/api/names/{name}"
    shell.write(root, path, name.encode())
    assert shell.read(root, path) == name.encode()
    assert root.rename(shell.path(path), shell.path(path + "-moved"))
    listed = [s.getPath().getName() for s in root.listStatus(shell.path("/api/names"))]
    assert listed == [name + "-moved"]
    assert shell.read(root, path + "-moved") == name.encode()
    assert root.delete(shell.path(path + "-moved"), False)


def test_seeking(shell: Shell, root: Any) -> None:
    """The client asks the DataNode of the first redirect again and again, for other offsets."""
    data = bytes(range(256)) * 20_000
    shell.write(root, "/api/seek", data)
    stream = root.open(shell.path("/api/seek"))
    for position in (0, 5_000_000, 77, 4_999_999, len(data) - 1):
        stream.seek(position)
        assert stream.read() == data[position]
    stream.seek(len(data))
    assert stream.read() == -1
    stream.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20, (3 << 20) + 5])
def test_checksums_are_hadoops(shell: Shell, root: Any, size: int) -> None:
    """Computed once more by Hadoop's own CRC32C and MD5 classes, in blocks of 1 MiB, as a DataNode of HDFS does."""
    data = hashlib.shake_128(b"%d" % size).digest(size)
    path, block_bytes = shell.path(f"/api/sum{size}"), 1 << 20
    stream = root.create(path, True, 4096, 2, block_bytes)
    stream.write(bytearray(data))
    stream.close()
    assert root.getFileStatus(path).getBlockSize() == block_bytes
    found = root.getFileChecksum(path)
    jvm = shell.jvm
    md5s = jvm.org.apache.hadoop.io.DataOutputBuffer()
    blocks = [data[at : at + block_bytes] for at in range(0, size, block_bytes)]
    crc = jvm.org.apache.hadoop.util.DataChecksum.newDataChecksum(
        jvm.org.apache.hadoop.util.DataChecksum.Type.CRC32C, 512
    )
    for block in blocks:
        words = jvm.java.io.ByteArrayOutputStream()
        chunks = len(block) // 512 + bool(len(block) % 512)
        sums = jvm.java.nio.ByteBuffer.allocate(4 * chunks)
        crc.calculateChunkedSums(jvm.java.nio.ByteBuffer.wrap(bytearray(block)), sums)
        words.write(sums.array(), 0, 4 * chunks)
        jvm.org.apache.hadoop.io.MD5Hash.digest(words.toByteArray()).write(md5s)
    expected = jvm.org.apache.hadoop.io.MD5Hash.digest(md5s.getData())
    per_block = 2048 if len(blocks) > 1 else 0
    classes = jvm.org.apache.hadoop.fs
    if blocks:
        wanted = classes.MD5MD5CRC32CastagnoliFileChecksum(512, per_block, expected)
    else:
        wanted = classes.MD5MD5CRC32GzipFileChecksum(0, 0, expected)
    assert found.equals(wanted), f"{found} is not {wanted}"


def test_two_users(shell: Shell, root: Any) -> None:
    ann, bob = shell.files("ann"), shell.files("bob")
    home = shell.path("/api/ann")
    root.mkdirs(home)
    root.setOwner(home, "ann", "staff")
    permission = shell.jvm.org.apache.hadoop.fs.permission.FsPermission
    root.setPermission(home, permission("700"))
    assert ann.getHomeDirectory().toUri().getPath() == "/user/ann"
    shell.write(ann, "/api/ann/f", b"hers")
    status = ann.getFileStatus(shell.path("/api/ann/f"))
    assert (status.getOwner(), status.getGroup()) == ("ann", "staff")
    denied = "org.apache.hadoop.security.AccessControlException"
    for call in (
        lambda: shell.read(bob, "/api/ann/f"),
        lambda: bob.listStatus(home),
        lambda: shell.write(bob, "/api/ann/g", b""),
        lambda: bob.delete(shell.path("/api/ann/f"), False),
        lambda: bob.rename(shell.path("/api/ann"), shell.path("/api/mine")),
        lambda: bob.setPermission(home, permission("777")),
        lambda: bob.setOwner(home, "bob", None),
        lambda: bob.append(shell.path("/api/ann/f")).close(),
    ):
        assert failure(call).startswith(denied)
    shell.ok("-setfacl", "-m", "user:bob:r-x", "/api/ann", user="ann")
    assert shell.read(bob, "/api/ann/f") == b"hers"
    assert failure(lambda: shell.write(bob, "/api/ann/g", b"")).startswith(denied)
    shell.ok("-setfacl", "-m", "user:bob:rwx,default:user:bob:rw-", "/api/ann", user="ann")
    shell.write(bob, "/api/ann/g", b"his")
    shell.write(ann, "/api/ann/h", b"shared")
    shell.write(bob, "/api/ann/h", b"changed")
    shell.ok("-setfacl", "-b", "/api/ann", user="ann")
    assert failure(lambda: bob.listStatus(home)).startswith(denied)
    assert "Permission denied" in shell.refused("-ls", "/api/ann", user="bob") or denied
    action = shell.jvm.org.apache.hadoop.fs.permission.FsAction
    ann.access(home, action.ALL)
    assert failure(lambda: bob.access(home, action.READ)).startswith(denied)


def test_exceptions_are_the_ones_programs_catch(shell: Shell, root: Any) -> None:
    shell.write(root, "/api/plain", b"x")
    path = shell.path
    exists = "org.apache.hadoop.fs.FileAlreadyExistsException"
    missing = "java.io.FileNotFoundException"
    for call, wanted in (
        (
            lambda: root.getFileStatus(path("/api/none")),
            f"{missing}: File does not exist: /api/none",
        ),
        (lambda: root.open(path("/api/none")).read(), missing),
        (lambda: root.listStatus(path("/api/none")), missing),
        (lambda: root.append(path("/api/none")).close(), missing),
        (lambda: root.getFileChecksum(path("/api/none")), missing),
        (lambda: root.create(path("/api/plain"), False).close(), exists),
        (lambda: root.mkdirs(path("/api/plain")), exists),
        (lambda: root.create(path("/api"), True).close(), exists),
        (
            lambda: root.mkdirs(path("/api/plain/x")),
            "org.apache.hadoop.fs.ParentNotDirectoryException",
        ),
        (
            lambda: root.delete(path("/api"), False),
            "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException",
        ),
        (lambda: root.truncate(path("/api/plain"), 5), "java.io.IOException"),
        (lambda: root.getXAttr(path("/api/plain"), "user.none"), "java.io.IOException"),
        (
            lambda: root.createSnapshot(path("/api"), "s"),
            "org.apache.hadoop.hdfs.protocol.SnapshotException",
        ),
    ):
        assert wanted in failure(call), wanted
    assert not root.delete(path("/api/none"), True)
    assert not root.rename(path("/api/none"), path("/api/none2"))
    assert not root.rename(path("/api/plain"), path("/api/no/parent"))


def test_renames_with_options(shell: Shell, root: Any) -> None:
    """FileContext's rename, which streaming checkpoints trust: onto a missing name only, unless OVERWRITE is asked for."""
    for name in ("from", "to"):
        shell.write(root, f"/api/{name}", name.encode())
    options = shell.jvm.org.apache.hadoop.fs.Options.Rename
    context = shell.jvm.org.apache.hadoop.fs.FileContext.getFileContext(
        shell.jvm.java.net.URI(shell.url), shell.conf
    )

    def rename(*which: Any) -> None:
        chosen = shell._gateway.new_array(options, len(which))
        for index, option in enumerate(which):
            chosen[index] = option
        context.rename(shell.path("/api/from"), shell.path("/api/to"), chosen)

    assert "FileAlreadyExistsException" in failure(rename)
    rename(options.OVERWRITE)
    assert shell.read(root, "/api/to") == b"from"
    assert "FileNotFoundException" in failure(rename)


def test_a_delegation_token_stands_for_its_owner(shell: Shell, root: Any) -> None:
    from urllib.request import urlopen

    token = shell.files("ann").getDelegationToken("root")
    text = token.encodeToUrlString()
    url = shell.url.replace("webhdfs", "http") + "/webhdfs/v1"
    with urlopen(f"{url}/?op=GETHOMEDIRECTORY&delegation={text}") as answer:
        assert answer.read() == b'{"Path":"/user/ann"}'
    assert token.decodeIdentifier().getUser().getUserName() == "ann"
    assert root.renewDelegationToken(token) > 0
    root.cancelDelegationToken(token)
    from urllib.error import HTTPError

    with pytest.raises(HTTPError):
        urlopen(f"{url}/?op=GETHOMEDIRECTORY&delegation={text}")


def test_what_the_server_says_of_itself(shell: Shell, root: Any) -> None:
    defaults = root.getServerDefaults(shell.path("/"))
    assert (defaults.getReplication(), defaults.getBlockSize()) == (2, 128 << 20)
    summary = root.getContentSummary(shell.path("/api"))
    assert summary.getDirectoryCount() >= 1
    usage = root.getQuotaUsage(shell.path("/api"))
    assert usage.getFileAndDirectoryCount() >= 1
    shell.write(root, "/api/located", b"x" * 10)
    status = root.getFileStatus(shell.path("/api/located"))
    (block,) = root.getFileBlockLocations(status, 0, 10)
    assert block.getLength() == 10
    assert len(block.getNames()) >= 2
    iterator = root.listStatusIterator(shell.path("/api"))
    names = []
    while iterator.hasNext():
        names.append(iterator.next().getPath().getName())
    assert names == sorted(names, key=str.encode)
