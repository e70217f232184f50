"""Option haggling, server side: every row of the options table, over raw bytes."""

import struct

import pytest

from answering import HAS_FLAGS, Answering, facts, replies
from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import Option, OptionReply, TransmissionFlag
from nbdserve.protocol.handshake import (
    NEED_DATA,
    Aborted,
    ExportRequested,
    Ready,
    ServerHandshake,
)
from nbdserve.protocol.messages import ReplyMode

ACK = OptionReply.ACK
INVALID = OptionReply.ERR_INVALID
FIXED = b"\0\0\0\x03"


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">I", len(data)) + data


def info(name, *asked, number=Option.INFO):
    return option(number, string(name) + struct.pack(f">H{len(asked)}H", len(asked), *asked))


def go(name="", *asked):
    return info(name, *asked, number=Option.GO)


def meta(number, name, *queries):
    body = string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries))
    return option(number, body)


def set_meta(name, *queries):
    return meta(Option.SET_META_CONTEXT, name, *queries)


def list_meta(name, *queries):
    return meta(Option.LIST_META_CONTEXT, name, *queries)


STRUCTURED = option(Option.STRUCTURED_REPLY)
EXTENDED = option(Option.EXTENDED_HEADERS)
BASE = (Option.SET_META_CONTEXT, OptionReply.META_CONTEXT, b"\0\0\0\x01base:allocation")
LISTED = (Option.LIST_META_CONTEXT, OptionReply.META_CONTEXT, b"\0\0\0\0base:allocation")


@pytest.fixture
def server():
    """A server that has been sent the client flags."""
    answering = Answering()
    assert answering.feed(FIXED) == b""
    return answering


def only(data):
    """The one reply in some bytes: (option, reply, payload)."""
    (reply,) = replies(data)
    return reply


def refused(data, number, reply):
    """Whether the one reply in some bytes is an error with a text."""
    found, kind, text = only(data)
    return (found, kind) == (number, reply) and bool(text.decode())


# Fixed newstyle, NO_ZEROES


def test_the_greeting_offers_fixed_newstyle_and_no_zeroes():
    assert ServerHandshake().data_to_send() == b"NBDMAGICIHAVEOPT\0\x03"


@pytest.mark.parametrize("flags", [4, 7, 1 << 31])
def test_unknown_client_flags_drop_the_connection(flags):
    with pytest.raises(ProtocolError, match="unknown client flags"):
        Answering().feed(struct.pack(">I", flags))


@pytest.mark.parametrize(("flags", "zeroes"), [(0, 124), (1, 124), (2, 0), (3, 0)])
def test_export_name_is_followed_by_zeroes_unless_waived(flags, zeroes):
    server = Answering()
    sent = server.feed(struct.pack(">I", flags) + option(Option.EXPORT_NAME, b"disk"))
    assert sent == struct.pack(">QH", 0x123456789000, 5) + bytes(zeroes)


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_go_is_never_followed_by_zeroes(flags):
    server = Answering()
    sent = server.feed(struct.pack(">I", flags) + go("disk"))
    assert replies(sent)[-1] == (Option.GO, ACK, b"")


# EXPORT_NAME


def test_export_name_begins_transmission_with_simple_replies(server):
    server.feed(option(Option.EXPORT_NAME, b"disk") + b"request")
    assert server.events[0] == ExportRequested("disk", Option.EXPORT_NAME)
    assert server.ready == (facts("disk"), ReplyMode.SIMPLE, False)
    assert server.handshake.trailing_data() == b"request"


def test_the_default_export_has_no_name(server):
    server.feed(option(Option.EXPORT_NAME))
    assert server.ready.export.name == ""


def test_export_name_of_an_unknown_export_closes_without_an_answer(server):
    with pytest.raises(ProtocolError, match="no such export"):
        server.feed(option(Option.EXPORT_NAME, b"missing"))
    assert server.sent == b""


@pytest.mark.parametrize("name", [b"a\0b", b"\xff", b"a" * 4097, b"a" * 70_000])
def test_export_name_with_a_bad_string_closes(server, name):
    with pytest.raises(ProtocolError, match="export refused"):
        server.feed(option(Option.EXPORT_NAME, name))


def test_export_name_after_extended_headers_closes(server):
    server.feed(EXTENDED)
    with pytest.raises(ProtocolError, match="extended headers"):
        server.feed(option(Option.EXPORT_NAME, b"disk"))


def test_export_name_after_structured_replies_is_structured(server):
    server.feed(STRUCTURED + set_meta("disk", "base:allocation"))
    server.feed(option(Option.EXPORT_NAME, b"disk"))
    assert server.ready.mode is ReplyMode.STRUCTURED
    assert server.ready.base_allocation


def test_export_name_of_an_export_with_a_minimum_block_size_closes():
    server = Answering(facts("disk", minimum=512))
    with pytest.raises(ProtocolError, match="NBD_INFO_BLOCK_SIZE"):
        server.feed(FIXED + option(Option.EXPORT_NAME, b"disk"))


# ABORT


@pytest.mark.parametrize("data", [b"", b"goodbye", bytes(70_000)])
def test_abort_is_acknowledged_even_with_data(server, data):
    assert only(server.feed(option(Option.ABORT, data))) == (Option.ABORT, ACK, b"")
    assert server.events == [Aborted()]


def test_what_follows_an_abort_is_not_looked_at(server):
    server.feed(option(Option.ABORT) + b"anything")
    assert server.feed(bytes(1000)) == b""
    assert server.handshake.next_event() == Aborted()


# LIST


def test_list_tells_names_and_descriptions(server):
    assert replies(server.feed(option(Option.LIST))) == [
        (Option.LIST, OptionReply.SERVER, string("") + b"all about "),
        (Option.LIST, OptionReply.SERVER, string("disk") + b"all about disk"),
        (Option.LIST, ACK, b""),
    ]


def test_list_with_data_is_invalid(server):
    assert refused(server.feed(option(Option.LIST, b"x")), Option.LIST, INVALID)


def test_a_list_of_no_exports_is_an_ack():
    server = Answering()
    server.exports.clear()
    assert replies(server.feed(FIXED + option(Option.LIST))) == [(Option.LIST, ACK, b"")]


# INFO, GO

EXPORT_INFO = struct.pack(">HQH", 0, 0x123456789000, 5)


@pytest.mark.parametrize("number", [Option.INFO, Option.GO])
def test_info_and_go_give_the_same_answer(server, number):
    assert replies(server.feed(info("disk", 1, 2, 3, number=number))) == [
        (number, OptionReply.INFO, EXPORT_INFO),
        (number, OptionReply.INFO, b"\0\x01disk"),
        (number, OptionReply.INFO, b"\0\x02all about disk"),
        (number, OptionReply.INFO, struct.pack(">HIII", 3, 1, 65536, 32 << 20)),
        (number, ACK, b""),
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [((), [0]), ((1,), [0, 1]), ((2,), [0, 2]), ((3,), [0, 3]), ((0,), [0]), ((1, 1), [0, 1])],
)
def test_info_tells_export_always_and_the_rest_when_asked(server, asked, told):
    *infos, _ = replies(server.feed(info("disk", *asked)))
    assert [int.from_bytes(payload[:2], "big") for _, _, payload in infos] == told


def test_unknown_info_ids_are_ignored(server):
    assert replies(server.feed(info("disk", 4, 77, 0xFFFF))) == [
        (Option.INFO, OptionReply.INFO, EXPORT_INFO),
        (Option.INFO, ACK, b""),
    ]


@pytest.mark.parametrize("number", [Option.INFO, Option.GO])
def test_an_unknown_export_is_err_unknown_and_haggling_goes_on(server, number):
    sent = server.feed(info("missing", 3, number=number))
    assert refused(sent, number, OptionReply.ERR_UNKNOWN)
    server.feed(go("disk"))
    assert server.ready.export.name == "disk"


@pytest.mark.parametrize("number", [Option.INFO, Option.GO])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\x05disk\0\0",
        string("disk"),
        string("disk") + b"\0",
        string("disk") + b"\0\x01",
        string("disk") + b"\0\x02\0\x01",
        string("disk") + b"\0\0\0\0",
        b"\xff\xff\xff\xffdisk\0\0",
    ],
)
def test_a_truncated_or_overlong_info_is_invalid(server, number, data):
    assert refused(server.feed(option(number, data)), number, INVALID)


def test_a_minimum_block_size_must_be_asked_for():
    server = Answering(facts("disk", minimum=512))
    for number in (Option.INFO, Option.GO):
        told, error = replies(
            server.feed((FIXED if number == 6 else b"") + info("disk", number=number))
        )
        assert told[2] == struct.pack(">HIII", 3, 512, 65536, 32 << 20)
        assert error[1] == OptionReply.ERR_BLOCK_SIZE_REQD
    server.feed(go("disk", 3))
    assert server.ready.export.minimum == 512


# STRUCTURED_REPLY, EXTENDED_HEADERS


@pytest.mark.parametrize(
    ("asked", "mode"), [(STRUCTURED, ReplyMode.STRUCTURED), (EXTENDED, ReplyMode.EXTENDED)]
)
def test_a_reply_mode_is_acknowledged_and_used(server, asked, mode):
    assert only(server.feed(asked))[1:] == (ACK, b"")
    server.feed(go("disk"))
    assert server.ready.mode is mode


@pytest.mark.parametrize("number", [Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS])
def test_a_reply_mode_with_data_is_invalid(server, number):
    assert refused(server.feed(option(number, b"x")), number, INVALID)
    server.feed(go("disk"))
    assert server.ready.mode is ReplyMode.SIMPLE


def test_structured_replies_after_extended_headers_are_refused(server):
    server.feed(EXTENDED)
    sent = server.feed(STRUCTURED)
    assert refused(sent, Option.STRUCTURED_REPLY, OptionReply.ERR_EXT_HEADER_REQD)
    server.feed(go("disk"))
    assert server.ready.mode is ReplyMode.EXTENDED


def test_extended_headers_after_structured_replies_take_precedence(server):
    server.feed(STRUCTURED + EXTENDED + go("disk"))
    assert server.ready.mode is ReplyMode.EXTENDED


@pytest.mark.parametrize(
    ("before", "expected"), [(b"", HAS_FLAGS), (STRUCTURED, 0x81), (EXTENDED, 0x81)]
)
def test_df_is_offered_only_with_structured_replies(before, expected):
    export = facts("disk", flags=HAS_FLAGS | TransmissionFlag.SEND_DF)
    server = Answering(export)
    sent = server.feed(FIXED + before + go("disk"))
    assert server.ready.export.flags == expected
    assert replies(sent)[-2][2][-2:] == struct.pack(">H", expected)


def test_what_is_switched_off_is_unsupported():
    server = Answering(extended=False, structured=False)
    server.feed(FIXED)
    for asked in (STRUCTURED, EXTENDED, list_meta("disk"), set_meta("disk")):
        assert only(server.feed(asked))[1] == OptionReply.ERR_UNSUP


# LIST_META_CONTEXT, SET_META_CONTEXT


@pytest.mark.parametrize("number", [Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT])
def test_meta_contexts_need_structured_replies(server, number):
    assert refused(server.feed(meta(number, "disk", "base:allocation")), number, INVALID)


@pytest.mark.parametrize("mode", [STRUCTURED, EXTENDED])
def test_base_allocation_is_selected(server, mode):
    server.feed(mode)
    sent = server.feed(set_meta("disk", "base:allocation", "base:allocation"))
    assert replies(sent) == [BASE, (Option.SET_META_CONTEXT, ACK, b"")]
    server.feed(go("disk"))
    assert server.ready.base_allocation


@pytest.mark.parametrize("queries", [(), ("base:",), ("base:allocation",), ("x-a:b", "base:")])
def test_base_allocation_is_listed(server, queries):
    server.feed(STRUCTURED)
    sent = server.feed(list_meta("disk", *queries))
    assert replies(sent) == [LISTED, (Option.LIST_META_CONTEXT, ACK, b"")]


@pytest.mark.parametrize(
    "queries", [("x-unknown:",), ("qemu:dirty-bitmap:b",), ("base:else",), ("",), ("base",)]
)
def test_unknown_namespaces_and_names_are_ignored(server, queries):
    server.feed(STRUCTURED)
    for number in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
        assert only(server.feed(meta(number, "disk", *queries))) == (number, ACK, b"")


@pytest.mark.parametrize("queries", [("base:",), ()])
def test_a_wildcard_or_nothing_selects_nothing(server, queries):
    server.feed(STRUCTURED)
    assert only(server.feed(set_meta("disk", *queries)))[1] == ACK
    server.feed(go("disk"))
    assert not server.ready.base_allocation


@pytest.mark.parametrize("number", [Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT])
def test_meta_contexts_of_an_unknown_export_are_err_unknown(server, number):
    server.feed(STRUCTURED)
    sent = server.feed(meta(number, "missing", "base:allocation"))
    assert refused(sent, number, OptionReply.ERR_UNKNOWN)


@pytest.mark.parametrize(
    "second",
    [
        set_meta("disk"),
        set_meta("missing", "base:allocation"),
        set_meta("disk", b"\xff"),
        option(Option.SET_META_CONTEXT, b"junk"),
        option(Option.SET_META_CONTEXT, bytes(70_000)),
    ],
    ids=["empty", "unknown export", "bad string", "truncated", "too big"],
)
def test_a_second_set_replaces_the_first_even_when_it_fails(server, second):
    server.feed(STRUCTURED + set_meta("disk", "base:allocation") + second + go("disk"))
    assert not server.ready.base_allocation


def test_a_list_leaves_the_set_alone(server):
    server.feed(STRUCTURED + set_meta("disk", "base:allocation") + list_meta("") + go("disk"))
    assert server.ready.base_allocation


def test_a_set_for_another_export_than_gos_is_not_used(server):
    server.feed(STRUCTURED + set_meta("", "base:allocation") + go("disk"))
    assert server.ready.mode is ReplyMode.STRUCTURED
    assert not server.ready.base_allocation


@pytest.mark.parametrize(
    "data",
    [
        b"",
        string("disk"),
        string("disk") + b"\0\0\0\x01",
        string("disk") + b"\0\0\0\x02" + string("base:"),
        string("disk") + b"\0\0\0\x01\0\0\0\x09base:",
        string("disk") + b"\0\0\0\0x",
        string("disk") + b"\xff\xff\xff\xff",
    ],
)
def test_a_truncated_or_overlong_meta_request_is_invalid(server, data):
    server.feed(STRUCTURED)
    for number in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
        assert refused(server.feed(option(number, data)), number, INVALID)


# STARTTLS


@pytest.mark.parametrize("data", [b"", b"x"])
def test_starttls_without_tls_is_unsupported(server, data):
    sent = server.feed(option(Option.STARTTLS, data))
    assert refused(sent, Option.STARTTLS, OptionReply.ERR_UNSUP)


def test_starttls_forgets_what_was_negotiated():
    server = Answering(offer_tls=True)
    server.feed(FIXED + EXTENDED + set_meta("disk", "base:allocation"))
    assert only(server.feed(option(Option.STARTTLS))) == (Option.STARTTLS, ACK, b"")
    server.feed(go("disk"))
    assert server.ready == (facts("disk"), ReplyMode.SIMPLE, False)


def test_bytes_that_came_in_before_tls_are_discarded():
    server = Answering(offer_tls=True)
    sent = server.feed(FIXED + option(Option.STARTTLS) + go("disk"))
    assert only(sent) == (Option.STARTTLS, ACK, b"")
    assert server.handshake.next_event() is NEED_DATA


def test_a_second_starttls_is_invalid():
    server = Answering(offer_tls=True)
    server.feed(FIXED + option(Option.STARTTLS))
    assert refused(server.feed(option(Option.STARTTLS)), Option.STARTTLS, INVALID)


def test_starttls_with_data_is_invalid():
    server = Answering(offer_tls=True)
    sent = server.feed(FIXED + option(Option.STARTTLS, b"x"))
    assert refused(sent, Option.STARTTLS, INVALID)


def test_required_tls_is_told_to_every_other_option():
    server = Answering(require_tls=True)
    server.feed(FIXED)
    for asked in (option(Option.LIST), go("disk"), STRUCTURED, set_meta("disk"), option(99, b"x")):
        assert only(server.feed(asked))[1] == OptionReply.ERR_TLS_REQD
    server.feed(option(Option.STARTTLS))
    server.feed(go("disk"))
    assert server.ready.export.name == "disk"


def test_export_name_without_the_required_tls_closes():
    with pytest.raises(ProtocolError, match="requires TLS"):
        Answering(require_tls=True).feed(FIXED + option(Option.EXPORT_NAME, b"disk"))


def test_abort_needs_no_tls():
    server = Answering(require_tls=True)
    assert only(server.feed(FIXED + option(Option.ABORT)))[1] == ACK


# Any other option


@pytest.mark.parametrize("number", [0, 4, 12, 99, 0xFFFFFFFF])
@pytest.mark.parametrize("length", [0, 1, 4096, 65_537, 1 << 20])
def test_any_other_option_is_unsupported_and_passed_over_exactly(server, number, length):
    sent = server.feed(option(number, b"I" * length))
    assert refused(sent, number, OptionReply.ERR_UNSUP)
    assert only(server.feed(STRUCTURED)) == (Option.STRUCTURED_REPLY, ACK, b"")


def test_an_absurd_length_closes(server):
    with pytest.raises(ProtocolError, match="bytes of data"):
        server.feed(b"IHAVEOPT" + struct.pack(">II", 99, (1 << 20) + 1))


def test_a_known_option_that_is_too_long_is_passed_over_and_refused(server):
    server.feed(STRUCTURED)
    for number in (Option.INFO, Option.GO, Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
        sent = server.feed(option(number, bytes(65_537)))
        assert refused(sent, number, OptionReply.ERR_TOO_BIG)
    server.feed(go("disk"))
    assert isinstance(server.handshake.next_event(), Ready)


def test_a_bad_option_magic_closes(server):
    with pytest.raises(ProtocolError, match="option magic"):
        server.feed(b"IHAVEOPS" + bytes(8))


# Strings


@pytest.mark.parametrize("bad", [b"a\0b", b"\xff\xfe", b"a" * 4097], ids=["NUL", "UTF-8", "long"])
def test_a_bad_string_is_invalid_wherever_it_stands(server, bad):
    server.feed(STRUCTURED)
    for asked in (info(bad), go(bad), list_meta(bad), set_meta(bad), set_meta("disk", bad)):
        assert only(server.feed(asked))[1] == INVALID


def test_a_string_of_4096_bytes_is_a_string():
    name = "ü" * 2048
    server = Answering(facts(name))
    server.feed(FIXED + STRUCTURED + list_meta(name, "x-" + "a" * 4094) + go(name, 1))
    assert server.ready.export.name == name


# Shutting down


def test_after_shut_down_every_option_but_abort_is_err_shutdown(server):
    server.handshake.shut_down()
    for asked in (option(Option.LIST), go("disk"), EXTENDED, option(99, b"x"), set_meta("disk")):
        assert refused(server.feed(asked), struct.unpack_from(">I", asked, 8)[0], 0x80000007)
    assert only(server.feed(option(Option.ABORT)))[1] == ACK


def test_after_shut_down_export_name_closes(server):
    server.handshake.shut_down()
    with pytest.raises(ProtocolError, match="shutting down"):
        server.feed(option(Option.EXPORT_NAME, b"disk"))


@pytest.mark.parametrize("asked", [go("disk"), option(Option.LIST)])
def test_an_option_being_answered_at_shut_down_is_err_shutdown(asked):
    server = Answering()
    server.handshake.receive_data(FIXED + asked)
    event = server.handshake.next_event()
    server.handshake.shut_down()
    server.answer(event)
    assert only(server.handshake.data_to_send())[1] == OptionReply.ERR_SHUTDOWN
    assert server.handshake.next_event() is NEED_DATA


# Misuse by the driver


def test_an_event_must_be_answered_before_the_next(server):
    server.handshake.receive_data(option(Option.LIST))
    server.handshake.next_event()
    with pytest.raises(RuntimeError, match="ListRequested"):
        server.handshake.next_event()


@pytest.mark.parametrize(
    "answer",
    [
        lambda h: h.send_list([]),
        lambda h: h.accept_export(facts()),
        lambda h: h.refuse_export(OptionReply.ERR_UNKNOWN, ""),
        lambda h: h.start_tls(),
        lambda h: h.trailing_data(),
    ],
)
def test_an_answer_out_of_order_is_a_programming_error(server, answer):
    with pytest.raises(RuntimeError):
        answer(server.handshake)


def test_a_refusal_must_be_an_error(server):
    server.handshake.receive_data(go("disk"))
    server.handshake.next_event()
    with pytest.raises(ValueError, match="no error"):
        server.handshake.refuse_export(OptionReply.ACK, "")


def test_the_outcome_is_told_again(server):
    server.feed(go("disk"))
    assert server.handshake.next_event() is server.handshake.next_event()
    failed = Answering()
    for _ in range(2):
        with pytest.raises(ProtocolError):
            failed.feed(b"\xff\xff\xff\xff")


def test_a_refusal_is_told_in_4096_bytes_without_nul(server):
    server.handshake.receive_data(go("disk"))
    server.handshake.next_event()
    server.handshake.refuse_export(OptionReply.ERR_POLICY, "\0" + "ü" * 4000)
    _, kind, text = only(server.handshake.data_to_send())
    assert kind == OptionReply.ERR_POLICY
    assert text.decode() == "?" + "ü" * 2047
