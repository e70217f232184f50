"""The control protocol's lines, both ways, whole, split and broken."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserve.control.codec import (
    LONGEST_REQUEST,
    LineReader,
    encode_reply,
    encode_request,
    parse_reply,
    parse_request,
)
from nbdserve.control.messages import (
    CommandError,
    Failure,
    FailureKind,
    Progress,
    Request,
    Result,
)
from nbdserve.errors import ProtocolError

REQUESTS = [
    (Request(0, "status", {}), b'{"v": 1, "id": 0, "command": "status", "arguments": {}}\n'),
    (
        Request(7, "warm", {"export": "a\nb", "offset": 0}),
        b'{"v": 1, "id": 7, "command": "warm", "arguments": {"export": "a\\nb", "offset": 0}}\n',
    ),
]
REPLIES = [
    (Result(1, {"bytes": 5}), b'{"v": 1, "id": 1, "result": {"bytes": 5}}\n'),
    (Progress(1, {"done": 5}), b'{"v": 1, "id": 1, "progress": {"done": 5}}\n'),
    (
        Failure(2, FailureKind.EXPORT, "no é"),
        b'{"v": 1, "id": 2, "error": {"kind": "unknown-export", "message": "no \\u00e9"}}\n',
    ),
]


@pytest.mark.parametrize(("request_", "line"), REQUESTS)
def test_a_request_is_written_and_read(request_, line):
    assert encode_request(request_) == line
    assert parse_request(line) == request_


@pytest.mark.parametrize(("reply", "line"), REPLIES)
def test_a_reply_is_written_and_read(reply, line):
    assert encode_reply(reply) == line
    assert parse_reply(line) == reply


def test_what_is_typed_by_hand_may_leave_things_out():
    assert parse_request(b'{"v":1,"command":"status"}') == Request(0, "status", {})


def test_keys_of_later_versions_are_ignored():
    assert parse_request(b'{"v":1,"command":"status","trace":[1]}') == Request(0, "status", {})
    assert parse_reply(b'{"v":1,"result":{},"took":3}') == Result(0, {})


def test_a_kind_of_failure_that_is_not_known_is_one_all_the_same():
    reply = parse_reply(b'{"v":1,"id":3,"error":{"kind":"novel","message":"x"}}')
    assert reply == Failure(3, FailureKind.INTERNAL, "x")


def test_another_version_is_told_so():
    with pytest.raises(CommandError, match="version 2") as caught:
        parse_request(b'{"v":2,"command":"status"}')
    assert caught.value.kind is FailureKind.VERSION
    with pytest.raises(ProtocolError, match="version 2"):
        parse_reply(b'{"v":2,"result":{}}')


@pytest.mark.parametrize(
    "line",
    [
        b"", b"status", b"[]", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000,
        b'{"v":1}', b'{"v":1,"command":5}', b'{"v":1,"command":"x","arguments":[]}',
        b'{"v":1,"id":"x","command":"x"}', b'{"v":1,"id":NaN,"command":"x"}',
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_request_is_refused(line):
    with pytest.raises(ProtocolError):
        parse_request(line)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(line):
    for parse in (parse_request, parse_reply):
        try:
            parse(line)
        except (ProtocolError, CommandError):
            pass


@given(st.recursive(st.none() | st.integers() | st.text(), lambda j: st.lists(j)
                    | st.dictionaries(st.sampled_from(["v", "id", "command", "arguments", "result",
                                                       "error", "kind"]), j)))  # fmt: skip
def test_whatever_json_comes_is_read_or_refused(value):
    line = json.dumps(value).encode()
    for parse in (parse_request, parse_reply):
        try:
            parse(line)
        except (ProtocolError, CommandError):
            pass


@given(
    st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=10), st.data()
)
def test_lines_are_cut_wherever_the_bytes_are(lines, data):
    whole = b"".join(line + b"\n" for line in lines)
    reader, found = LineReader(100), []
    while whole:
        step = data.draw(st.integers(1, len(whole)))
        reader.receive_data(whole[:step])
        whole = whole[step:]
        while (line := reader.next_line()) is not None:
            found.append(line)
    assert found == lines
    assert not reader.is_full


def test_a_line_may_be_as_long_as_is_said_and_no_longer():
    reader = LineReader(10)
    reader.receive_data(b"x" * 10 + b"\n")
    assert reader.next_line() == b"x" * 10
    for too_long in (b"x" * 11 + b"\n", b"x" * 11):
        reader = LineReader(10)
        reader.receive_data(too_long)
        assert reader.is_full
        with pytest.raises(ProtocolError, match="10 bytes"):
            reader.next_line()


def test_a_request_is_bounded_well_above_what_is_needed():
    many = {"export": {"name": "x" * 4096, "layers": [{"type": "cache", "path": "/y" * 400}] * 20}}
    assert len(encode_request(Request(1, "export.add", many))) < LONGEST_REQUEST


def test_a_cloud_init_seed_of_512_kib_goes_into_a_request():
    seed = base64.b64encode(bytes(512 << 10)).decode()
    table = {"name": "seed/web1", "source": {"type": "data", "base64": seed}}
    line = encode_request(Request(1, "export.add", {"export": table}))
    assert len(line) < LONGEST_REQUEST
    assert LONGEST_REQUEST <= 1 << 20, "and what 16 clients may hold stays small"
