"""An exclusive export on the wire: who is let in, who may write, and what the others are told."""

import asyncio
import contextlib
import socket

import pytest

from gated_device import GatedDevice
from nbdserve.device import BlockSize
from nbdserve.protocol.constants import (
    Command,
    CommandFlag,
    Info,
    Option,
    OptionReply,
    TransmissionFlag,
    WireError,
)
from nbdserve.protocol.negotiation import Wish
from nbdserve.protocol.options import InfoRequest
from nbdserve.server.clients import Clients
from nbdserve.server.exports import Export, Exports, export_facts
from nbdserve.server.limits import Limits
from nbdserve.spec import ElementSpec, ExportSpec
from nbdserve.testing.client import Client, RemoteError
from nbdserve.testing.haggler import Haggler, RefusedError

SPEC = ExportSpec(ElementSpec("memory", (("", "1M"),)), name="guest/web1", exclusive=True)


class Served:
    """One exclusive export, and clients of it over socket pairs."""

    def __init__(self, stack, exports):
        self.stack = stack
        self.exports = exports
        self.clients = Clients(exports, Limits(), most=100)
        self.count = 0

    @property
    def lease(self):
        return self.exports.slots()[0].lease

    @property
    def export(self):
        return self.exports.slots()[0].export

    @property
    def waiting(self):
        """How many have chosen the export and are not let in yet."""
        inside = {self.lease.facts().holder, self.lease.facts().other}
        facts = self.clients.facts()
        return sum(one.export is not None and one.peer not in inside for one in facts)

    def socket(self):
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.stack.callback(ours.close)
        self.count += 1
        self.clients.add(theirs, peer=f"client{self.count}")
        return ours

    async def connect(self, export="guest/web1", **wishes):
        client = await Client.from_socket(self.socket(), export=export, **wishes)
        self.stack.push_async_callback(client.close)
        return client


@pytest.fixture
async def served():
    exports = await Exports.open([SPEC], keep_going=False)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(exports.close)
        made = Served(stack, exports)

        async def end():
            made.clients.abort()
            await made.clients.gone()

        stack.push_async_callback(end)
        yield made


def put_under(served, device):
    """Have the export serve a device whose waits are gates."""
    (slot,) = served.exports.slots()
    slot.export = Export(device, export_facts(slot.spec, device.info), slot.lease)
    return device


class Stubborn(GatedDevice):
    """A device whose calls go on though they are cancelled, as a thread's do."""

    async def _pass(self, *call):
        self.calls.append(call)
        self.waiting.release()
        cancelled = None
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError as exc:
                cancelled = exc
        if cancelled is not None:
            raise cancelled


async def until(predicate):
    """Let the loop turn until it is so."""
    for _ in range(10_000):
        if predicate():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


async def outcome(task):
    """Await a task; return what it returned or raised."""
    (found,) = await asyncio.gather(task, return_exceptions=True)
    return found


async def refused(work):
    """Await what must be answered with EPERM; return the text."""
    with pytest.raises(RemoteError) as caught:
        await work
    assert caught.value.error == WireError.EPERM
    return caught.value.text


async def test_a_second_client_is_refused_with_a_text_and_no_multi_conn_is_offered(served):
    first = await served.connect()
    assert not first.export.flags & TransmissionFlag.CAN_MULTI_CONN
    with pytest.raises(RefusedError) as caught:
        await served.connect()
    answer = caught.value.answer
    assert answer.reply == OptionReply.ERR_POLICY
    assert answer.text.startswith('export "guest/web1" is in use by client1; ')
    await first.write(0, b"still mine")


async def test_by_export_name_a_second_client_is_disconnected(served):
    await served.connect()
    sock = served.socket()
    loop = asyncio.get_running_loop()
    name = b"guest/web1"
    option = b"IHAVEOPT" + (1).to_bytes(4, "big") + len(name).to_bytes(4, "big") + name
    await loop.sock_sendall(sock, (3).to_bytes(4, "big") + option)
    received = b""
    async with asyncio.timeout(30):
        while more := await loop.sock_recv(sock, 4096):
            received += more
    assert len(received) == 18, "the greeting, and nothing else"


async def test_info_and_list_stay_allowed(served):
    await served.connect()
    haggler = await Haggler.greet(served.socket())
    assert (await haggler.ask(Option.LIST)).reply == OptionReply.ACK
    assert (await haggler.ask_info(InfoRequest("guest/web1", ()))).reply == OptionReply.ACK
    with pytest.raises(RefusedError, match="ERR_POLICY"):
        await haggler.connect(Wish(export="guest/web1"))
    assert (await haggler.ask(Option.LIST)).reply == OptionReply.ACK, "and it may go on asking"


async def test_who_asks_for_information_only_holds_nothing(served):
    haggler = await Haggler.greet(served.socket())
    assert (await haggler.ask_info(InfoRequest("guest/web1", ()))).reply == OptionReply.ACK
    await served.connect()


async def test_who_is_refused_for_its_block_size_holds_nothing(served):
    put_under(served, GatedDevice(block_size=BlockSize(512, 4096, 1 << 20)))
    haggler = await Haggler.greet(served.socket())
    with pytest.raises(RefusedError, match="BLOCK_SIZE"):
        await haggler.connect(Wish(export="guest/web1", infos=()))
    await served.connect(infos=(Info.BLOCK_SIZE,))


async def test_after_the_first_has_left_the_next_comes_in_at_once(served):
    for n in range(20):
        client = await served.connect()
        await client.write(0, bytes((n,)))
        await (client.disconnect() if n % 2 else client.close())


async def test_who_has_said_goodbye_holds_nothing_though_its_socket_is_open(served):
    first = await served.connect()
    goodbye = asyncio.create_task(first.request(Command.DISC))
    await until(lambda: served.lease.facts().holder is None)
    await served.connect()
    await first.close()
    assert isinstance(await outcome(goodbye), OSError)


async def test_who_comes_while_a_request_of_the_one_before_still_runs_waits_for_it(served):
    device = put_under(served, Stubborn())
    first = await served.connect()
    device.gate.clear()
    first_write = asyncio.create_task(first.write(0, b"x"))
    await device.waiting.acquire()
    await first.close()
    coming = asyncio.create_task(served.connect())
    await until(lambda: served.waiting == 1)
    assert served.lease.facts().holder == "client1"
    device.gate.set()
    second = await coming
    await second.write(0, b"second")
    assert isinstance(await outcome(first_write), OSError)


async def test_a_handover_on_the_wire(served):
    first = await served.connect()
    await first.write(0, b"first")
    served.lease.begin_handover(3600)
    second = await served.connect()
    assert await second.read(0, 5) == b"first"
    await second.flush()
    await first.write(0, b"FIRST"), "neither reads nor flushes take the lease"
    await second.write(8, b"second")
    text = await refused(first.write(0, b"late!"))
    assert text == 'export "guest/web1" was handed over to client2; this client may only read'
    assert await first.read(0, 16) == b"FIRST\0\0\0second\0\0"
    await first.flush()
    await first.disconnect()
    await second.write(0, b"again")


@pytest.mark.parametrize(
    ("command", "flags", "payload"),
    [
        (Command.WRITE, 0, b"x" * 4096),
        (Command.WRITE, CommandFlag.FUA, b"x" * 4096),
        (Command.TRIM, 0, None),
        (Command.WRITE_ZEROES, 0, None),
        (Command.WRITE_ZEROES, CommandFlag.NO_HOLE, None),
    ],
)
async def test_any_change_takes_the_lease_and_is_refused_to_who_has_lost_it(
    served, command, flags, payload
):
    first = await served.connect()
    served.lease.begin_handover(3600)
    second = await served.connect()
    if payload is not None and second.mode == 2:
        flags |= CommandFlag.PAYLOAD_LEN
    reply = await second.request(command, 0, 4096, flags=flags, payload=payload)
    assert reply.error is None
    reply = await first.request(command, 0, 4096, flags=flags, payload=payload)
    assert reply.error[0] == WireError.EPERM
    reply = await first.request(Command.WRITE, 0, 0, flags=flags, payload=b"" if payload else None)


async def test_the_first_write_of_the_second_waits_for_the_last_of_the_first(served):
    device = put_under(served, GatedDevice())
    first = await served.connect()
    served.lease.begin_handover(3600)
    second = await served.connect()
    device.gate.clear()
    before = asyncio.create_task(first.write(0, b"before"))
    await device.waiting.acquire()
    after = asyncio.create_task(second.write(0, b"after."))
    assert await second.read(4096, 8) == bytes(device.data[4096:4104]), "its reads do not wait"
    await until(lambda: served.lease.facts().holder == "client2")
    assert device.calls == [("write", 0, 6, False)]
    device.gate.set()
    await asyncio.gather(before, after)
    assert device.data[:6] == b"after."


async def test_the_client_without_the_lease_is_dropped_at_the_end_of_a_handover(served):
    first = await served.connect()
    served.lease.begin_handover(3600)
    second = await served.connect()
    assert served.lease.end_handover() == "client2"
    with pytest.raises(OSError):  # noqa: PT011 -- which one depends on who is first
        await second.read(0, 1)
    await first.write(0, b"mine")


async def test_all_clients_of_an_export_are_dropped_and_counted(served):
    first = await served.connect()
    served.lease.begin_handover(3600)
    await served.connect()
    haggling = await Haggler.greet(served.socket())
    assert await served.clients.end(served.export) == 2
    assert served.lease.facts() == (None, None, None, False)
    assert (await haggling.ask(Option.LIST)).reply == OptionReply.ACK
    with pytest.raises(OSError):  # noqa: PT011 -- likewise
        await first.read(0, 1)
    await served.connect()


async def test_one_that_waits_to_come_in_is_dropped_with_the_others(served):
    device = put_under(served, Stubborn())
    first = await served.connect()
    device.gate.clear()
    first_write = asyncio.create_task(first.write(0, b"x"))
    await device.waiting.acquire()
    await first.close()
    coming = asyncio.create_task(served.connect())
    await until(lambda: served.waiting == 1)
    ending = asyncio.create_task(served.clients.end(served.export))
    assert isinstance(await outcome(coming), OSError)
    assert not ending.done(), "a write still runs"
    device.gate.set()
    assert await ending == 2
    assert isinstance(await outcome(first_write), OSError)


async def test_a_tcp_client_is_watched_so_that_a_dead_node_is_noticed_within_30_s(served):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        served.clients.accept_on(listening)
        host, port = listening.getsockname()
        client = await Client.connect_tcp(host, port, export="guest/web1")
        (connection,) = served.clients._tasks.values()
        told = [
            connection._sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
        ]
        await client.close()
        served.clients.refuse_on(listening)
    idle, interval, timeout = told
    assert idle < timeout / 1000
    assert 20 <= timeout / 1000 + interval <= 30
