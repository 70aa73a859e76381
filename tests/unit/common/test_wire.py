"""Messages and frames: what is well-formed comes back, what is not is refused with a typed error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.common import codec, transfer
from twinfs.common.errors import (
    ERRNO,
    BlockNotFound,
    DfsError,
    InvalidRequest,
    PathNotFound,
    RequestTooLarge,
    all_errors,
    errno_of,
    error_from_code,
    exit_code,
    http_status,
)
from twinfs.common.messages import BlockCommit, Create, Failure, Stat
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.operations import OPERATIONS


@pytest.mark.parametrize("cls", all_errors())
def test_every_error_has_an_answer_in_every_view(cls: type[DfsError]) -> None:
    error = cls("why")
    assert 400 <= http_status(error) < 600
    assert errno_of(error) in ERRNO.values()
    assert 1 <= exit_code(error) < 126
    rebuilt = codec.error_of(codec.failure_of(error))
    assert type(rebuilt) is cls
    assert rebuilt.message == "why"


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in all_errors()]
    assert len(codes) == len(set(codes))


def test_an_unknown_code_is_still_an_error() -> None:
    assert type(error_from_code("from-the-future", "x")) is DfsError


def test_a_reference_is_shown_to_the_user() -> None:
    failure = Failure(code=PathNotFound.code, message="no", reference="ab12")
    assert "ab12" in codec.error_of(failure).message


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_is_described(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation.name == name
    assert issubclass(operation.request, msgspec.Struct)
    assert msgspec.json.schema(operation.request)
    assert msgspec.json.schema(operation.response)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"path": 5}',
        b"{}",
        b'{"path": "/a", "holder": ""}',
        b'{"path": "/a", "holder": "h", "mode": -1}',
        b'{"path": "/a", "holder": "h", "mode": 4096}',
        b'{"path": "/a", "holder": "h", "replication": 0}',
        b'{"path": "/a", "holder": "h", "replication": 513}',
        b'{"path": "/a", "holder": "h", "block_size": 134217729}',
        b'{"path": "/a", "holder": "h", "overwrite": "yes"}',
        b'{"path": "\xff", "holder": "h"}',
        b"[" * 100_000,
    ],
)
def test_json_that_does_not_fit_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        codec.from_json(body, Create)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoders(data: bytes) -> None:
    for decode in (codec.unpack_calls, codec.unpack_replies, transfer.decode_request):
        try:
            decode(data)
        except InvalidRequest as error:
            assert len(error.message) < 2000


@given(st.text(max_size=50).filter(lambda text: text.isprintable()))
def test_a_message_survives_both_encodings(path: str) -> None:
    message = Stat(path=path)
    assert codec.unpack(codec.pack(message), Stat) == message
    assert codec.from_json(codec.to_json(message), Stat) == message


def test_bytes_travel_through_json() -> None:
    commit = BlockCommit(
        block_id=BlockId(1),
        generation=GenerationStamp(2),
        length=3,
        digest=bytes(range(32)),
        nodes=[],
    )
    with pytest.raises(InvalidRequest):
        codec.from_json(codec.to_json(commit), BlockCommit)  # no node holds it: refused
    assert codec.from_json(codec.to_json(msgspec.structs.replace(commit, nodes=[7])), BlockCommit)


def test_fields_of_a_newer_peer_are_ignored() -> None:
    assert codec.unpack(codec.pack({"path": "/a", "added_later": 1}), Stat) == Stat(path="/a")


def test_a_frame_comes_back() -> None:
    request = transfer.ReadBlock(
        block=BlockRef(block_id=BlockId(5), generation=GenerationStamp(6)), offset=1 << 20
    )
    frame = transfer.pack_frame(transfer.Kind.REQUEST, request)
    length, kind, flags = transfer.unpack_header(frame[:8])
    assert (length, kind, flags) == (len(frame) - 8, transfer.Kind.REQUEST, transfer.Flag.NONE)
    assert transfer.decode_request(frame[8:]) == request


@pytest.mark.parametrize(
    "header", [bytes(8), b"\0\0\0\1\x09\0\0\0", b"\0\0\0\1\1\x10\0\0", b"\0\0\0\1\1\0\0\1"]
)
def test_what_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidRequest):
        transfer.unpack_header(header)


@pytest.mark.parametrize("kind", list(transfer.Kind))
def test_a_frame_over_the_limit_is_refused_before_it_is_read(kind: transfer.Kind) -> None:
    with pytest.raises(RequestTooLarge):
        transfer.unpack_header(transfer.HEADER.pack(0xFFFFFFFF, kind, 0, 0))


def test_an_error_keeps_its_type_through_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BlockNotFound("gone")))
    assert type(error) is BlockNotFound
    assert error.message == "gone"
