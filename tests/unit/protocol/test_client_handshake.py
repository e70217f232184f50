"""Option haggling, client side: against the server's half, and against servers that break rules."""

import struct

import pytest

from answering import Answering, facts
from nbdserve.errors import ProtocolError
from nbdserve.protocol.client_handshake import Answer, ClientHandshake, Connected, Greeted
from nbdserve.protocol.constants import HandshakeFlag, Info, Option, OptionReply
from nbdserve.protocol.handshake import NEED_DATA, Aborted, ExportRequested, Ready
from nbdserve.protocol.messages import ReplyMode
from nbdserve.protocol.negotiation import Wish, negotiate
from nbdserve.protocol.option_replies import (
    BlockSizes,
    Listing,
    MetaContext,
    encode_error,
    encode_reply,
)
from nbdserve.protocol.options import InfoRequest, MetaRequest

GREETING = b"NBDMAGICIHAVEOPT\0\x03"
ALL = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)


def greeted(greeting=GREETING):
    client = ClientHandshake()
    client.receive_data(greeting)
    assert isinstance(client.next_event(), Greeted)
    return client


def exchange(client, server):
    """Let one side answer the other until the client has an event."""
    while (event := client.next_event()) is NEED_DATA:
        data = client.data_to_send()
        assert data, "both sides wait"
        client.receive_data(server.feed(data))
    return event


def connect(server, wish, greeting=GREETING):
    """Negotiate; return the event that ended it, or the answer that refused."""
    client = ClientHandshake()
    client.receive_data(greeting)
    plan = negotiate(client, client.next_event(), wish)
    next(plan)
    while True:
        event = exchange(client, server)
        if isinstance(event, Connected):
            return event
        try:
            plan.send(event)
        except StopIteration as stop:
            return stop.value


# Against the server's half


def test_the_client_answers_a_greeting_with_the_flags_of_both():
    client = greeted()
    assert client.data_to_send() == b"\0\0\0\x03"
    assert greeted(GREETING[:-1] + b"\x01").data_to_send() == b"\0\0\0\x01"


def test_list_is_answered_with_every_export():
    client, server = greeted(), Answering()
    client.ask(Option.LIST)
    assert exchange(client, server) == Answer(
        Option.LIST,
        OptionReply.ACK,
        exports=(Listing("", "all about "), Listing("disk", "all about disk")),
    )


def test_info_is_answered_with_the_export():
    client, server = greeted(), Answering()
    client.ask_info(Option.INFO, InfoRequest("disk", ALL))
    answer = exchange(client, server)
    assert answer.is_accepted
    assert answer.export == facts("disk")
    assert answer.block_sizes == BlockSizes(1, 65536, 32 << 20)


def test_what_was_not_asked_for_has_the_default():
    client, server = greeted(), Answering()
    client.ask_info(Option.INFO, InfoRequest("disk"))
    expected = facts("disk", description="", minimum=1, preferred=4096, maximum=32 << 20)
    assert exchange(client, server).export == expected


def test_a_refusal_is_an_answer_with_the_servers_words():
    client, server = greeted(), Answering()
    client.ask_info(Option.GO, InfoRequest("missing"))
    answer = exchange(client, server)
    assert (answer.reply, answer.text) == (OptionReply.ERR_UNKNOWN, "no such export")
    assert not answer.is_accepted


def test_block_sizes_told_with_a_refusal_are_kept():
    client, server = greeted(), Answering(facts("disk", minimum=512))
    client.ask_info(Option.GO, InfoRequest("disk"))
    answer = exchange(client, server)
    assert answer.reply == OptionReply.ERR_BLOCK_SIZE_REQD
    assert answer.block_sizes == BlockSizes(512, 65536, 32 << 20)


def test_meta_contexts_are_listed():
    client, server = greeted(), Answering()
    client.ask(Option.STRUCTURED_REPLY)
    client.ask_meta(Option.LIST_META_CONTEXT, MetaRequest("disk"))
    assert exchange(client, server).is_accepted
    assert exchange(client, server).contexts == (MetaContext(0, "base:allocation"),)


def test_pipelined_options_are_answered_in_order():
    client, server = greeted(), Answering()
    client.ask(Option.EXTENDED_HEADERS)
    client.ask(Option.LIST)
    client.ask_info(Option.GO, InfoRequest("disk", ALL))
    answers = [exchange(client, server) for _ in range(3)]
    assert [a.option for a in answers[:2]] == [Option.EXTENDED_HEADERS, Option.LIST]
    assert answers[2].negotiated.mode is ReplyMode.EXTENDED


def test_abort_is_answered():
    client, server = greeted(), Answering()
    client.ask(Option.ABORT)
    assert exchange(client, server).is_accepted
    assert server.events == [Aborted()]


@pytest.mark.parametrize("zeroes", [True, False])
def test_export_name_is_followed_by_zeroes_unless_waived(zeroes):
    client, server = greeted(GREETING[:-1] + (b"\1" if zeroes else b"\3")), Answering()
    client.choose("disk")
    client.receive_data(server.feed(client.data_to_send()) + b"reply")
    connected = client.next_event()
    assert connected.negotiated.export.size == facts().size
    assert connected.negotiated.export.name == "disk"
    assert client.trailing_data() == b"reply"


def test_tls_forgets_what_was_negotiated():
    client, server = greeted(), Answering(offer_tls=True)
    client.ask(Option.EXTENDED_HEADERS)
    exchange(client, server)
    client.ask(Option.STARTTLS)
    assert exchange(client, server).is_accepted
    client.receive_data(b"injected")
    client.forget()
    assert client.mode is ReplyMode.SIMPLE
    client.ask_info(Option.GO, InfoRequest("disk", ALL))
    assert exchange(client, server).negotiated == server.ready


@pytest.mark.parametrize("step", [1, 7, 20, 1000])
def test_answers_are_the_same_however_the_bytes_arrive(step):
    def ask(client):
        client.ask(Option.EXTENDED_HEADERS)
        client.ask(Option.LIST)
        client.ask_meta(Option.SET_META_CONTEXT, MetaRequest("disk", ("base:allocation",)))
        client.ask_info(Option.GO, InfoRequest("disk", ALL))
        return client.data_to_send()

    client, server = greeted(), Answering()
    stream = server.feed(ask(client)) + b"trailing"
    found = []
    for at in range(0, len(stream), step):
        client.receive_data(stream[at : at + step])
        while not found or not isinstance(found[-1], Connected):
            event = client.next_event()
            if event is NEED_DATA:
                break
            found.append(event)
    assert [getattr(event, "option", None) for event in found] == [11, 3, 10, None]
    assert found[1].exports == (Listing("", "all about "), Listing("disk", "all about disk"))
    assert found[3] == Connected(server.ready, (MetaContext(1, "base:allocation"),))
    assert client.trailing_data() == b"trailing"


# Negotiation


@pytest.mark.parametrize(
    ("offers", "wish", "mode", "base"),
    [
        ({}, Wish(export="disk"), ReplyMode.EXTENDED, True),
        ({"extended": False}, Wish(export="disk"), ReplyMode.STRUCTURED, True),
        ({}, Wish(export="disk", mode=ReplyMode.STRUCTURED), ReplyMode.STRUCTURED, True),
        ({}, Wish(export="disk", mode=ReplyMode.SIMPLE), ReplyMode.SIMPLE, False),
        ({}, Wish(export="disk", contexts=()), ReplyMode.EXTENDED, False),
        ({"extended": False, "structured": False}, Wish(export="disk"), ReplyMode.SIMPLE, False),
    ],
)
def test_both_sides_come_to_the_same(offers, wish, mode, base):
    server = Answering(**offers)
    connected = connect(server, wish)
    assert connected.negotiated == server.ready
    assert (server.ready.mode, server.ready.base_allocation) == (mode, base)
    assert [context.name for context in connected.contexts] == ["base:allocation"] * base


def test_a_missing_export_ends_the_negotiation_with_the_refusal():
    answer = connect(Answering(), Wish(export="missing"))
    assert answer.reply == OptionReply.ERR_UNKNOWN


def test_a_server_without_options_is_asked_for_the_export_by_name():
    server = Answering()
    connected = connect(server, Wish(export="disk"), GREETING[:-1] + b"\x02")
    assert connected.negotiated.mode is ReplyMode.SIMPLE
    assert server.ready.export.name == "disk"


def test_a_server_without_go_is_asked_for_the_export_by_name():
    client = greeted()
    client.data_to_send()
    plan = negotiate(client, Greeted(HandshakeFlag(3)), Wish(export="d", mode=ReplyMode.SIMPLE))
    next(plan)
    client.data_to_send()
    client.receive_data(encode_error(Option.GO, OptionReply.ERR_UNSUP, ""))
    plan.send(client.next_event())
    assert client.data_to_send() == b"IHAVEOPT" + struct.pack(">II", 1, 1) + b"d"
    client.receive_data(struct.pack(">QH", 512, 1))
    assert client.next_event().negotiated.export.size == 512


def test_contexts_set_for_another_export_are_not_used():
    client, server = greeted(), Answering()
    client.ask(Option.STRUCTURED_REPLY)
    client.ask_meta(Option.SET_META_CONTEXT, MetaRequest("", ("base:allocation",)))
    client.ask_info(Option.GO, InfoRequest("disk", ALL))
    exchange(client, server)
    exchange(client, server)
    connected = exchange(client, server)
    assert connected.contexts == ()
    assert connected.negotiated == server.ready


def test_a_second_set_replaces_the_first_even_when_it_fails():
    client, server = greeted(), Answering()
    client.ask(Option.STRUCTURED_REPLY)
    client.ask_meta(Option.SET_META_CONTEXT, MetaRequest("disk", ("base:allocation",)))
    assert [exchange(client, server).is_accepted for _ in range(2)] == [True, True]
    client.ask_meta(Option.SET_META_CONTEXT, MetaRequest("missing", ("base:allocation",)))
    assert not exchange(client, server).is_accepted
    client.ask_info(Option.GO, InfoRequest("disk", ALL))
    connected = exchange(client, server)
    assert connected.contexts == ()
    assert connected.negotiated == server.ready


def test_contexts_are_not_asked_for_unless_wished():
    server = Answering()
    connect(server, Wish(export="disk", contexts=()))
    assert [type(event) for event in server.events] == [ExportRequested, Ready]


# Servers that break rules


@pytest.mark.parametrize(
    "sent",
    [
        bytes(20),
        encode_reply(Option.GO, OptionReply.ACK),
        encode_reply(Option.LIST, OptionReply.INFO, b"\0\0"),
        encode_reply(Option.LIST, 77) + encode_reply(Option.LIST, OptionReply.ACK),
        encode_reply(Option.LIST, OptionReply.SERVER, b"\xff\xff\xff\xff")
        + encode_reply(Option.LIST, OptionReply.ACK),
        struct.pack(">QIII", 0x3E889045565A9, Option.LIST, 2, (64 << 10) + 1),
    ],
)
def test_a_senseless_reply_is_a_protocol_error(sent):
    client = greeted()
    client.ask(Option.LIST)
    client.receive_data(sent + encode_reply(Option.LIST, OptionReply.ACK))
    with pytest.raises(ProtocolError):
        client.next_event()


def test_a_reply_that_was_not_asked_for_is_a_protocol_error():
    client = greeted()
    client.receive_data(encode_reply(Option.LIST, OptionReply.ACK))
    with pytest.raises(ProtocolError, match="not the one asked"):
        client.next_event()


def test_go_without_its_export_is_a_protocol_error():
    client = greeted()
    client.ask_info(Option.GO, InfoRequest("disk"))
    client.receive_data(encode_reply(Option.GO, OptionReply.ACK))
    with pytest.raises(ProtocolError, match="NBD_INFO_EXPORT"):
        client.next_event()


def test_an_endless_list_is_a_protocol_error_before_it_is_held():
    client = greeted()
    client.ask(Option.LIST)
    one = encode_reply(Option.LIST, OptionReply.SERVER, bytes(4) + b"x" * 60_000)

    def receive_all():
        for _ in range(ClientHandshake.MOST_HELD // len(one) + 1):
            client.receive_data(one)
            assert client.next_event() is NEED_DATA
            assert client._replied + len(client._buffer) <= ClientHandshake.MOST_HELD

    with pytest.raises(ProtocolError, match="in reply to one option"):
        receive_all()


def test_unknown_infos_are_ignored():
    client, server = greeted(), Answering()
    client.ask_info(Option.INFO, InfoRequest("disk"))
    unknown = encode_reply(Option.INFO, OptionReply.INFO, b"\x12\x34whatever")
    client.receive_data(unknown + server.feed(client.data_to_send()))
    assert client.next_event().export.size == facts().size


# Misuse by the driver


def test_options_cannot_be_asked_out_of_order():
    with pytest.raises(RuntimeError, match="not greeted"):
        ClientHandshake().ask(Option.LIST)
    with pytest.raises(RuntimeError, match="EXPORT_NAME"):
        greeted(GREETING[:-1] + b"\0").ask(Option.LIST)
    with pytest.raises(RuntimeError, match="not Connected"):
        greeted().trailing_data()
    client = greeted()
    client.choose("disk")
    client.receive_data(bytes(10))
    assert client.next_event() is client.next_event()
    with pytest.raises(RuntimeError, match="over"):
        client.ask(Option.LIST)
