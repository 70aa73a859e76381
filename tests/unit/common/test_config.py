"""Flags beat the environment, which beats the file, which beats the defaults; nonsense is refused."""

import socket
from pathlib import Path

import pytest

from twinfs.common.config import ClientConfig, DataNodeConfig, NameNodeConfig, load, settings
from twinfs.common.errors import InvalidConfig


def write(folder: Path, text: str) -> str:
    path = folder / "twinfs.toml"
    path.write_text(text)
    return str(path)


def test_the_order_of_sources(tmp_path: Path) -> None:
    file = write(tmp_path, "[namenode]\nport = 1\nreplication = 5\nhost = '127.0.0.2'\n")
    environ = {"TWINFS_NAMENODE_PORT": "2", "TWINFS_NAMENODE_REPLICATION": "4"}
    config = load(NameNodeConfig, {"port": 3, "host": None}, file=file, environ=environ)
    assert (config.port, config.replication, config.host) == (3, 4, "127.0.0.2")
    origins = {s.name: s.origin for s in settings(NameNodeConfig, file=file, environ=environ)}
    assert origins["port"] == "environment TWINFS_NAMENODE_PORT"
    assert origins["host"] == f"file {file}"
    assert origins["dir"] == "default"


def test_the_short_name_of_the_namenode(tmp_path: Path) -> None:
    environ = {"TWINFS_NAMENODE": "http://there:1"}
    assert load(ClientConfig, environ=environ).namenode == "http://there:1"
    both = {**environ, "TWINFS_CLIENT_NAMENODE": "http://here:1"}
    assert load(ClientConfig, environ=both).namenode == "http://here:1"


def test_the_short_name_of_the_user() -> None:
    environ = {"TWINFS_USER": "ada"}
    assert load(ClientConfig, environ=environ).user_name == "ada"
    assert load(ClientConfig, {"user": "eve"}, environ=environ).user_name == "eve"
    found = settings(ClientConfig, environ={**environ, "TWINFS_CLIENT_USER": "bob"})
    user = next(setting for setting in found if setting.name == "user")
    assert (user.value, user.origin) == ("bob", "environment TWINFS_CLIENT_USER")


def test_a_datanode_on_all_interfaces_is_reached_at_its_machines_name() -> None:
    """Nobody could reach 0.0.0.0, and the NameNode would hand it to clients."""
    assert DataNodeConfig(host="0.0.0.0").reached_at == socket.gethostname()
    assert (
        DataNodeConfig(host="0.0.0.0", advertise="dn1.example.org").reached_at == "dn1.example.org"
    )
    assert DataNodeConfig(host="10.0.0.7").reached_at == "10.0.0.7"


def test_lists_from_the_environment() -> None:
    config = load(DataNodeConfig, environ={"TWINFS_DATANODE_DIR": "/a,/b"})
    assert config.dir == ("/a", "/b")


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[elsewhere]\nx = 1",
        "[namenode]\nprot = 1",
        "[namenode]\nport = 'x'",
        "[namenode]\nport = true",
        "[namenode]\nport = 1.5",
        "[namenode]\nblock_bytes = 1000",
        "[namenode]\ndead_after_s = 5",
        "[namenode]\nstale_after_s = 50",
        "namenode = 1",
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfig):
        load(NameNodeConfig, file=write(tmp_path, text), environ={})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="can't read"):
        load(NameNodeConfig, file=str(tmp_path / "missing.toml"), environ={})


def test_the_same_volume_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="twice"):
        DataNodeConfig(dir=(str(tmp_path), str(tmp_path / "." / "")))


def test_a_namenode_must_be_a_url() -> None:
    with pytest.raises(InvalidConfig, match="http"):
        ClientConfig(namenode="localhost:9870")
