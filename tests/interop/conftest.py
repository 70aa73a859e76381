"""What other people wrote, run against real TwinFS processes. `make interop` installs and runs it; see docs/webhdfs.md.

One Java machine has Hadoop's client, from the jars inside PyPI's pyspark, reached through py4j.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.cluster import Cluster, running

SUPERUSER = "root"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    options = ("--replication", "2", "--user", SUPERUSER)
    with running(tmp_path_factory.mktemp("interop"), datanodes=3, namenode_options=options) as made:
        yield made
        assert not made.tracebacks(), made.logs()


class Shell:
    """Hadoop's FsShell and FileSystem, as any user."""

    def __init__(self, gateway: Any, url: str) -> None:
        self.jvm = gateway.jvm
        self._gateway = gateway
        self.url = url.replace("http://", "webhdfs://")
        self.conf = self.jvm.org.apache.hadoop.conf.Configuration()
        self.conf.set("fs.defaultFS", self.url)
        self.conf.set("fs.trash.interval", "60")
        self._out = self.jvm.java.lang.System.out
        self._err = self.jvm.java.lang.System.err

    def run(self, *words: str, user: str = SUPERUSER, stdin: bytes = b"") -> tuple[int, str, str]:
        """(exit code, standard output, standard error) of `hadoop fs WORDS`."""
        java = self.jvm.java
        out, err = java.io.ByteArrayOutputStream(), java.io.ByteArrayOutputStream()
        words_array = self._gateway.new_array(java.lang.String, len(words))
        for index, word in enumerate(words):
            words_array[index] = word
        with self._acting_as(user):
            java.lang.System.setOut(java.io.PrintStream(out))
            java.lang.System.setErr(java.io.PrintStream(err))
            java.lang.System.setIn(java.io.ByteArrayInputStream(bytearray(stdin)))
            try:
                shell = self.jvm.org.apache.hadoop.fs.FsShell()
                code = self.jvm.org.apache.hadoop.util.ToolRunner.run(self.conf, shell, words_array)
            finally:
                java.lang.System.setOut(self._out)
                java.lang.System.setErr(self._err)
        return code, out.toString(), err.toString()

    def ok(self, *words: str, **more: Any) -> str:
        """Standard output of a command that must do what it says."""
        code, out, err = self.run(*words, **more)
        assert code == 0, f"{words}: exit code {code}\n{out}\n{err}"
        return out

    def refused(self, *words: str, **more: Any) -> str:
        """Standard error of a command that must fail."""
        code, out, err = self.run(*words, **more)
        assert code != 0, f"{words}: {out}\n{err}"
        return err

    @contextlib.contextmanager
    def _acting_as(self, user: str) -> Iterator[None]:
        ugi = self.jvm.org.apache.hadoop.security.UserGroupInformation
        former = ugi.getLoginUser()
        ugi.setLoginUser(ugi.createRemoteUser(user))
        try:
            yield
        finally:
            ugi.setLoginUser(former)

    def files(self, user: str = SUPERUSER) -> Any:
        """A `FileSystem` of *user*'s."""
        uri = self.jvm.java.net.URI(self.url)
        return self.jvm.org.apache.hadoop.fs.FileSystem.get(uri, self.conf, user)

    def path(self, text: str) -> Any:
        host = self.url.partition("//")[2]
        return self.jvm.org.apache.hadoop.fs.Path("webhdfs", host, text)

    def write(self, files: Any, path: str, data: bytes) -> None:
        stream = files.create(self.path(path))
        stream.write(bytearray(data))
        stream.close()

    def read(self, files: Any, path: str) -> bytes:
        stream = files.open(self.path(path))
        try:
            return bytes(self.jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()


@pytest.fixture(scope="session")
def shell(cluster: Cluster) -> Iterator[Shell]:
    pyspark = pytest.importorskip("pyspark", reason="`make interop` installs what this needs")
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    if shutil.which("java") is None:
        pytest.fail("Java is not installed (Debian: default-jre-headless)")
    jars = Path(pyspark.__file__).parent / "jars"
    (bridge,) = jars.glob("py4j-*.jar")
    port, process = launch_gateway(
        jarpath=str(bridge),
        classpath=f"{jars}/*",
        javaopts=["-Xmx512m", "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8"],
        die_on_exit=True,
        return_proc=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
    try:
        yield Shell(gateway, cluster.url)
    finally:
        gateway.shutdown()
        process.stdin.close()
        process.wait(timeout=30)
