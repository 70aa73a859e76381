"""Path parsing: what is a path, what is not, and that each limit has its own error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.common import paths
from twinfs.common.errors import InvalidPath, NameTooLong, PathTooDeep, PathTooLong

names = st.text(min_size=1, max_size=60).filter(
    lambda name: (
        name not in (".", "..")
        and "/" not in name
        and "\0" not in name
        and not any("\ud800" <= char <= "\udfff" for char in name)
    )
)


@given(st.lists(names, max_size=20))
def test_joined_components_parse_back(components: list[str]) -> None:
    assert paths.parse(paths.join(tuple(components))) == tuple(components)


@pytest.mark.parametrize("text", ["/", "//", "///"])
def test_the_root_has_no_components(text: str) -> None:
    assert paths.parse(text) == ()


def test_doubled_and_trailing_slashes_mean_the_same_path() -> None:
    assert paths.parse("//a///b/") == ("a", "b")


@pytest.mark.parametrize(
    "text", ["", "a", "./a", "/a/../b", "/.", "/a/./b", "/a\0b", "/\ud800", "/a/\udfff/c"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidPath):
        paths.parse(text)


def test_a_name_is_measured_in_bytes_of_utf8() -> None:
    assert paths.parse("/" + "é" * 127) == ("é" * 127,)
    with pytest.raises(NameTooLong, match="256 bytes"):
        paths.parse("/" + "é" * 128)
    assert paths.parse("/" + "x" * 255)
    with pytest.raises(NameTooLong):
        paths.parse("/" + "x" * 256)


def test_depth_and_length_have_errors_of_their_own() -> None:
    assert len(paths.parse("/a" * 1000)) == 1000
    with pytest.raises(PathTooDeep):
        paths.parse("/a" * 1001)
    assert paths.parse("/" + "/".join(["x" * 199] * 40))[0] == "x" * 199
    with pytest.raises(PathTooLong):
        paths.parse("/" + "/".join(["x" * 199] * 41))


@given(st.text())
def test_any_text_parses_or_is_refused_with_a_printable_message(text: str) -> None:
    try:
        paths.parse(text)
    except InvalidPath as error:
        assert error.message.isprintable()
        assert len(error.message) < 1000
