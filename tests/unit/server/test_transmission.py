"""The transmission phase, raw bytes against a device whose waits are gates."""

import asyncio
import errno
import gc
import socket
import struct

import pytest

from gated_device import ALL, GatedDevice
from nbdserve.device import BlockSize, Capability
from nbdserve.errors import DeviceError
from nbdserve.protocol.constants import ChunkType, Command, CommandFlag, WireError
from nbdserve.protocol.messages import ReplyMode, Request
from nbdserve.server.limits import Limits

DATA, HOLE, NONE = ChunkType.OFFSET_DATA, ChunkType.OFFSET_HOLE, ChunkType.NONE
MODES = pytest.mark.parametrize("mode", list(ReplyMode))


def request(type_, offset=0, length=0, flags=0, cookie=1, payload=None):
    return Request(flags, type_, cookie, offset, length, payload)


def read(offset, length, cookie=1, flags=0):
    return request(Command.READ, offset, length, flags, cookie)


def write(offset, data, cookie=1, flags=0):
    return request(Command.WRITE, offset, len(data), flags, cookie, memoryview(data))


async def result(wire, length=0):
    """Receive one reply in any mode: (error, cookie, data or b'')."""
    if wire.mode is ReplyMode.SIMPLE:
        return await wire.simple(length)
    flags, type_, cookie, payload = await wire.chunk()
    assert flags == 1
    if type_ & 0x8000:
        return struct.unpack_from(">I", payload)[0], cookie, b""
    return 0, cookie, payload[8:]


@MODES
@pytest.mark.parametrize("hot", [True, False])
async def test_a_read_returns_the_bytes(connect, mode, hot):
    device = GatedDevice()
    device.hot = hot
    wire = await connect(device, mode)
    await wire.send(read(4096, 512, cookie=9))
    assert await result(wire, 512) == (0, 9, bytes(device.data[4096:4608]))


@MODES
async def test_a_batch_of_reads_is_answered_in_one_go(connect, mode):
    device = GatedDevice()
    wire = await connect(device, mode)
    await wire.send(*(read(n * 4096, 4096, cookie=n) for n in range(200)))
    for n in range(200):
        assert await result(wire, 4096) == (0, n, bytes(device.data[n * 4096 : (n + 1) * 4096]))
    assert device.calls == []  # no read had to wait


async def test_bytes_that_came_with_the_handshake_are_served(connect):
    from nbdserve.protocol.requests import encode_request

    device = GatedDevice()
    wire = await connect(device, trailing=encode_request(read(0, 8), extended=False))
    assert await result(wire) == (0, 1, bytes(device.data[:8]))


async def test_replies_come_out_of_order_as_they_are_ready(connect):
    """Mistake (18): one slow request stalling the others."""
    device = GatedDevice()
    device.gate.clear()
    wire = await connect(device)
    await wire.send(request(Command.FLUSH, cookie=1), read(0, 8, cookie=2))
    assert (await result(wire))[1] == 2
    device.gate.set()
    assert (await result(wire))[1] == 1


@MODES
async def test_a_read_never_gets_a_simple_reply_after_structured_replies(connect, mode):
    """Mistake (2), also for an error."""
    device = GatedDevice(10_000)
    wire = await connect(device, mode)
    await wire.send(read(9999, 2, cookie=5))
    assert await result(wire) == (WireError.EINVAL, 5, b"")


async def test_an_error_text_travels_in_the_chunk(connect):
    device = GatedDevice()
    device.failure = DeviceError("xz: block 3 is corrupt")
    wire = await connect(device)
    await wire.send(read(0, 512, cookie=4))
    flags, type_, cookie, payload = await wire.chunk()
    assert (flags, type_, cookie) == (1, ChunkType.ERROR, 4)
    assert payload == struct.pack(">IH", 5, 22) + b"xz: block 3 is corrupt"


async def test_done_is_never_set_on_data_that_can_still_fail(connect):
    """Mistake (3): a read that fails late sends no data chunk at all."""
    device = GatedDevice()
    device.hot = False
    device.gate.clear()
    wire = await connect(device)
    await wire.send(read(0, 512))
    await device.waiting.acquire()
    device.failure = DeviceError("late")
    device.gate.set()
    assert (await wire.chunk())[1] == ChunkType.ERROR


@pytest.mark.parametrize("mode", [ReplyMode.STRUCTURED, ReplyMode.EXTENDED])
@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("length", [16, 4096, 100_000, 3 << 20])
async def test_zeroes_are_answered_as_a_hole(connect, mode, hot, length):
    device = GatedDevice(4 << 20)
    device.hot = hot
    device.data[:length] = bytes(length)
    wire = await connect(device, mode)
    await wire.send(read(0, length))
    assert await wire.chunk() == (1, HOLE, 1, struct.pack(">QI", 0, length))
    device.data[length - 1] = 1
    await wire.send(read(0, length))
    assert (await wire.chunk())[1] == DATA


async def test_df_gets_one_content_chunk_of_data_even_for_zeroes(connect):
    device = GatedDevice()
    device.data[:] = bytes(len(device.data))
    wire = await connect(device)
    await wire.send(read(0, 1 << 20, flags=CommandFlag.DF))
    assert await wire.chunk() == (1, DATA, 1, bytes(8) + bytes(1 << 20))


async def test_a_simple_reply_to_a_read_that_fails_is_an_error_and_no_data(connect):
    """A header with error 0 could not be taken back but by a hard disconnect."""
    device = GatedDevice()
    device.hot = False
    device.failure = DeviceError("disk on fire")
    wire = await connect(device, ReplyMode.SIMPLE)
    await wire.send(read(0, 1 << 20, cookie=1))
    assert await wire.simple(1 << 20) == (WireError.EIO, 1, b"")
    device.failure = None
    await wire.send(read(0, 512, cookie=2))
    assert await wire.simple(512) == (0, 2, bytes(device.data[:512]))


@MODES
async def test_a_write_of_64_mib_is_carried_out(connect, mode):
    device = GatedDevice(0)
    size = 64 << 20
    device.data = bytearray(size)
    device._info = type(device._info)(size, BlockSize(), ALL)
    wire = await connect(device, mode)
    payload = bytes(range(1, 256)) * (size // 255) + bytes(size % 255)
    await wire.send(write(0, payload))
    assert (await result(wire))[:2] == (0, 1)
    assert device.data == payload


@MODES
@pytest.mark.parametrize("size", [5, 4096, 1 << 20])
async def test_a_write_arrives_whole(connect, mode, size):
    device = GatedDevice(2 << 20)
    data = bytes(range(251)) * (size // 251 + 1)
    wire = await connect(device, mode)
    await wire.send(write(100, data[:size], cookie=3))
    assert await result(wire) == (0, 3, b"")
    assert device.data[100 : 100 + size] == data[:size]
    assert device.calls == [("write", 100, size, False)]


@MODES
async def test_a_write_to_a_read_only_export_is_eperm_and_its_payload_is_drained(connect, mode):
    """Mistake (1)."""
    device = GatedDevice(can=Capability.NONE)
    wire = await connect(device, mode)
    await wire.send(write(0, bytes(300_000), cookie=1), read(8, 8, cookie=2))
    replies = {(await result(wire))[1::-1] for _ in range(1)}
    assert replies == {(1, WireError.EPERM)}
    assert await result(wire, 8) == (0, 2, bytes(device.data[8:16]))


async def test_a_write_past_the_end_is_enospc(connect):
    wire = await connect(GatedDevice(1000))
    await wire.send(write(999, b"ab"))
    assert (await result(wire))[0] == WireError.ENOSPC


async def test_fua_on_a_write_is_replied_to_only_when_durable(connect):
    device = GatedDevice()
    device.gate.clear()
    wire = await connect(device)
    await wire.send(write(0, b"durable", flags=CommandFlag.FUA), read(0, 8, cookie=2))
    assert (await result(wire))[1] == 2
    device.gate.set()
    assert (await result(wire))[:2] == (0, 1)
    assert ("write", 0, 7, True) in device.calls


@pytest.mark.parametrize(
    "command", [write(0, b"x", flags=1), request(Command.TRIM, 0, 8, 1),
                request(Command.WRITE_ZEROES, 0, 8, 1)],
)  # fmt: skip
async def test_fua_is_emulated_by_a_flush_where_the_device_has_none(connect, command):
    device = GatedDevice(can=ALL & ~Capability.FUA)
    wire = await connect(device)
    await wire.send(command)
    assert (await result(wire))[0] == 0
    assert [call[0] for call in device.calls][-1] == "flush"
    assert device.calls[0][3] is False


async def test_fua_on_a_read_is_accepted(connect):
    """Mistake (8)."""
    wire = await connect(GatedDevice())
    await wire.send(read(0, 8, flags=CommandFlag.FUA))
    assert (await result(wire))[0] == 0


@pytest.mark.parametrize(
    ("flags", "may_trim", "fast"),
    [(0, True, False), (CommandFlag.NO_HOLE, False, False), (CommandFlag.FAST_ZERO, True, True)],
)
async def test_write_zeroes_passes_its_flags_on(connect, flags, may_trim, fast):
    device = GatedDevice()
    wire = await connect(device)
    await wire.send(request(Command.WRITE_ZEROES, 0, 1 << 20, flags))
    assert (await result(wire))[0] == 0
    assert device.calls == [("write_zeroes", 0, 1 << 20, False, may_trim, fast)]


async def test_fast_zero_that_is_slow_is_enotsup(connect):
    device = GatedDevice()
    device.failure = DeviceError("slow", errno.EOPNOTSUPP)
    wire = await connect(device)
    await wire.send(request(Command.WRITE_ZEROES, 0, 8, CommandFlag.FAST_ZERO))
    assert (await result(wire))[0] == WireError.ENOTSUP


@pytest.mark.parametrize("mode", [ReplyMode.STRUCTURED, ReplyMode.EXTENDED])
async def test_block_status_is_one_chunk_and_never_longer_than_the_request(connect, mode):
    """Mistakes (4), (5)."""
    wire = await connect(GatedDevice(), mode)
    await wire.send(request(Command.BLOCK_STATUS, 0, 8192))
    flags, type_, _, payload = await wire.chunk()
    if mode is ReplyMode.EXTENDED:
        assert (flags, type_) == (1, ChunkType.BLOCK_STATUS_EXT)
        assert payload == struct.pack(">IIQQQQ", 1, 2, 4096, 0, 4096, 3)
    else:
        assert (flags, type_) == (1, ChunkType.BLOCK_STATUS)
        assert payload == struct.pack(">IIIII", 1, 4096, 0, 4096, 3)


@pytest.mark.parametrize("length", [1, 4096, 100_000])
async def test_req_one_gets_one_extent_not_longer_than_the_request(connect, length):
    """Mistake (4)."""
    wire = await connect(GatedDevice())
    await wire.send(request(Command.BLOCK_STATUS, 0, length, CommandFlag.REQ_ONE))
    payload = (await wire.chunk())[3]
    assert payload == struct.pack(">III", 1, min(length, 4096), 0)


async def test_extents_are_rounded_to_the_minimum_block_size(connect):
    device = GatedDevice(100_000, block_size=BlockSize(512, 4096, 1 << 20))

    async def extents(offset, length):
        from nbdserve.extents import ZERO_HOLE, Extent, State

        return [Extent(700, ZERO_HOLE), Extent(10, State.DATA), Extent(length - 710, ZERO_HOLE)]

    device.extents = extents
    wire = await connect(device)
    await wire.send(request(Command.BLOCK_STATUS, 0, 100_000))
    payload = (await wire.chunk())[3]
    assert payload == struct.pack(">IIIIIII", 1, 512, 3, 512, 0, 100_000 - 1024, 3)


@pytest.mark.parametrize("broken", [[], [(0, 0)]])
async def test_a_device_without_extents_is_an_error_not_a_hang(connect, broken):
    from nbdserve.extents import Extent, State

    device = GatedDevice()

    async def extents(offset, length):
        return [Extent(n, State(state)) for n, state in broken]

    device.extents = extents
    wire = await connect(device)
    await wire.send(request(Command.BLOCK_STATUS, 0, 8192))
    assert (await wire.chunk())[1] == ChunkType.ERROR


@MODES
@pytest.mark.parametrize(
    "command", [Command.READ, Command.WRITE, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES]
)
async def test_zero_length_is_answered(connect, mode, command):
    device = GatedDevice()
    wire = await connect(device, mode)
    await wire.send(request(command, 0, 0))
    assert await result(wire) == (0, 1, b"")
    assert device.calls == []


@MODES
@pytest.mark.parametrize("command", [8, 99, 0xFFFF])
async def test_an_unknown_command_is_einval_and_the_connection_goes_on(connect, mode, command):
    wire = await connect(GatedDevice(), mode)
    await wire.send(request(command, 0, 0, cookie=1), read(0, 8, cookie=2))
    assert await result(wire) == (WireError.EINVAL, 1, b"")
    assert (await result(wire, 8))[:2] == (0, 2)


async def test_bad_magic_closes_the_connection(connect):
    wire = await connect(GatedDevice())
    await asyncio.get_running_loop().sock_sendall(wire.sock, bytes(28))
    await wire.end()
    with pytest.raises(EOFError):
        await wire.receive(1)


async def test_disc_waits_for_the_replies_and_gets_none_itself(connect):
    """Mistake (12)."""
    device = GatedDevice()
    device.gate.clear()
    wire = await connect(device)
    await wire.send(request(Command.FLUSH, cookie=1), request(Command.DISC, cookie=2))
    await device.waiting.acquire()
    assert not wire.task.done()
    device.gate.set()
    assert (await result(wire))[1] == 1
    with pytest.raises(EOFError):
        await wire.receive(1)
    await wire.end()


async def test_stop_finishes_what_is_in_flight_and_then_ends(connect):
    device = GatedDevice()
    device.gate.clear()
    wire = await connect(device)
    await wire.send(write(0, b"kept", cookie=1))
    await device.waiting.acquire()
    wire.transmission.stop()
    device.gate.set()
    assert (await result(wire))[:2] == (0, 1)
    with pytest.raises(EOFError):
        await wire.receive(1)
    assert device.data[:4] == b"kept"


async def test_a_client_that_vanishes_has_its_requests_cancelled(connect):
    device = GatedDevice()
    device.gate.clear()
    wire = await connect(device)
    await wire.send(*(request(Command.FLUSH, cookie=n) for n in range(10)))
    for _ in range(10):
        await device.waiting.acquire()
    wire.sock.close()
    await wire.end()
    assert len(asyncio.all_tasks()) == 1


async def test_an_exception_of_a_device_is_eio_for_that_request_only(connect, caplog):
    device = GatedDevice()
    device.hot = False
    device.failure = RuntimeError("a bug in a layer")
    wire = await connect(device)
    await wire.send(read(0, 8, cookie=1))
    assert (await result(wire))[:2] == (WireError.EIO, 1)
    device.failure = None
    await wire.send(read(0, 8, cookie=2))
    assert (await result(wire))[:2] == (0, 2)
    assert "a bug in a layer" in caplog.text


async def test_at_most_max_in_flight_requests_are_carried_out_at_once(connect):
    device = GatedDevice()
    device.gate.clear()
    wire = await connect(device, limits=Limits(max_in_flight=4))
    await wire.send(*(request(Command.FLUSH, cookie=n) for n in range(20)))
    for _ in range(4):
        await device.waiting.acquire()
    await asyncio.sleep(0)
    assert len(device.calls) == 4
    device.gate.set()
    assert {(await result(wire))[1] for _ in range(20)} == set(range(20))


async def test_at_most_max_in_flight_bytes_are_under_way(connect):
    device = GatedDevice()
    device.hot = False
    device.gate.clear()
    wire = await connect(device, limits=Limits(max_in_flight_bytes=100_000))
    await wire.send(*(read(0, 40_000, cookie=n) for n in range(10)))
    for _ in range(2):
        await device.waiting.acquire()
    await asyncio.sleep(0)
    assert len(device.calls) == 2
    device.gate.set()
    assert {(await result(wire))[1] for _ in range(10)} == set(range(10))


async def test_one_request_is_admitted_however_large(connect):
    device = GatedDevice(8 << 20)
    device.hot = False
    wire = await connect(device, limits=Limits(max_in_flight_bytes=1000))
    await wire.send(read(0, 8 << 20))
    assert (await result(wire))[2] == device.data


async def test_a_client_that_does_not_read_costs_bounded_memory(connect):
    device = GatedDevice(1 << 20)
    wire = await connect(device, buffer=1 << 16)
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    reads = [read(0, 1 << 18, cookie=n) for n in range(1000)]
    sender = asyncio.create_task(wire.send(*reads))
    for _ in range(200):
        await asyncio.sleep(0)
    transmission = wire.transmission
    assert transmission._outbox.size <= 4 << 20
    most = 0
    for n in range(1000):  # more is always asked for, so that all is sent only at the end
        most = max(most, len(transmission._slabs))
        assert await result(wire) == (0, n, bytes(device.data[: 1 << 18]))
    assert most <= 4
    await sender
    gc.collect()
    assert transmission._outbox.size == 0
    assert transmission._slabs == []


async def test_a_deep_queue_does_not_keep_another_connection_waiting(connect):
    """Mistake (18): a turn of the loop serves a bounded batch."""
    device = GatedDevice()
    greedy, modest = await connect(device), await connect(device)
    await greedy.send(*(read(0, 65536, cookie=n) for n in range(64)))
    await modest.send(read(0, 8, cookie=7))
    assert (await result(modest))[1] == 7
    for n in range(64):
        assert (await result(greedy))[1] == n


@pytest.mark.parametrize("command", [Command.TRIM, Command.CACHE, Command.WRITE_ZEROES])
async def test_a_range_of_4_gib_is_one_call(connect, command):
    """Mistake (6): never cut short, never a disconnect."""
    device = GatedDevice(4096)
    device._info = type(device._info)(1 << 40, BlockSize(), ALL)

    async def write_zeroes(offset, length, **flags):
        device.calls.append(("write_zeroes", offset, length))

    device.write_zeroes = write_zeroes
    wire = await connect(device)
    await wire.send(request(command, 0, (1 << 32) - 1))
    assert (await result(wire))[0] == 0
    assert device.calls[0][:3] == (command.name.lower(), 0, (1 << 32) - 1)


async def test_one_that_is_cancelled_leaves_no_watch_on_its_socket(connect):
    """The descriptor's number goes to the next connection, whose bytes it would take."""
    wire = await connect(GatedDevice(4096))
    descriptor = wire.transmission._sock.fileno()
    for _ in range(5):
        await asyncio.sleep(0)
    assert wire.transmission._reading
    wire.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wire.task
    assert not asyncio.get_running_loop().remove_reader(descriptor)
