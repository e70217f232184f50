"""The contract of `Device`, as tests for whoever writes a source or a layer.

A test module of one's own needs no more than this:

    class TestMine(DeviceConformance):
        @pytest.fixture
        def open_subject(self):
            @asynccontextmanager
            async def opened():
                device = MySource(MyParams(size=300_001))
                await device.open(read_only=False)
                try:
                    yield Subject(device, contents=bytes(300_001))
                finally:
                    await device.close()
            return opened

    TestMineAtRandom = state_machine_for(opened).TestCase

Give it a size that is no multiple of anything, and one of 0: mistakes live at the last partial
block. Parametrise `open_subject` to run many devices through the same tests. Needs the extra
`nbdserve[testing]`; works in either mode of pytest-asyncio.

Each test asks only for what the device's capabilities promise, so none of them is ever skipped.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import pairwise

import pytest
import pytest_asyncio

from nbdserve.device import Capability
from nbdserve.errors import NotSupportedError, ReadOnlyError
from nbdserve.ranges import align_down
from nbdserve.testing.checks import (
    at_once,
    cancel_after,
    check_bytes,
    check_extents,
    locatable,
    read_slowly,
)
from nbdserve.testing.model import Model, Range, Subject, ranges_between
from nbdserve.testing.stateful import DeviceMachine, state_machine_for

__all__ = ["DeviceConformance", "DeviceMachine", "Opener", "Subject", "state_machine_for"]

Opener = Callable[[], AbstractAsyncContextManager[Subject]]
"""Opens a fresh device and closes it at the end."""

_WRITES_BYTES = Capability.TRIM | Capability.WRITE_ZEROES | Capability.FAST_ZERO
_GUARD = b"\xa5" * 16
# Turns of the event loop before a call is cancelled: before it began, and at its first waits.
_TURNS = (0, 1, 2, 5)


class DeviceConformance:
    """Every rule of the contract in `nbdserve.device` as a test; override `open_subject`."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def open_subject(self) -> Opener:
        """Return what opens a fresh device; the one thing a subclass must provide."""
        raise NotImplementedError("override the fixture open_subject")

    @pytest_asyncio.fixture
    async def subject(self, open_subject: Opener) -> AsyncIterator[Subject]:
        """Open the device under test for one test."""
        async with open_subject() as subject:
            yield subject

    async def test_its_facts_agree_with_one_another(self, subject: Subject) -> None:
        info = subject.device.info
        assert info.size == len(subject.contents)
        block = info.block_size
        assert 1 <= block.minimum <= block.preferred <= block.maximum
        assert block.minimum.bit_count() == block.preferred.bit_count() == 1, "powers of two"
        assert info.size % block.minimum == 0
        if not info.can & Capability.WRITE:
            assert not info.can & _WRITES_BYTES, "it changes bytes but cannot be written"
        if info.can & Capability.FAST_ZERO:
            assert info.can & Capability.WRITE_ZEROES
        await _read_all(subject)
        assert subject.device.info == info, "facts are constant while it is open"

    async def test_it_holds_what_it_should(self, subject: Subject) -> None:
        assert await _read_all(subject) == subject.contents

    async def test_reads_at_every_boundary_are_whole(self, subject: Subject) -> None:
        for offset, length in ranges_between(subject.boundaries()):
            await check_bytes(subject.device, subject.model(), Range(offset, length))

    async def test_a_read_touches_nothing_beside_its_view(self, subject: Subject) -> None:
        for offset, length in ranges_between(subject.boundaries()):
            buffer = bytearray(_GUARD + bytes(length) + _GUARD)
            await subject.device.read_into(offset, memoryview(buffer)[16 : 16 + length])
            assert buffer[:16] == buffer[16 + length :] == _GUARD
            assert buffer[16:-16] == subject.contents[offset : offset + length]

    async def test_reads_without_waiting_agree_with_reads(self, subject: Subject) -> None:
        device = subject.device
        for part in ranges_between(subject.boundaries()):
            first, again = bytearray(part.length), bytearray(part.length)
            filled = device.read_into_nowait(part.offset, memoryview(first))
            wanted = await read_slowly(device, part)
            assert not filled or first == wanted, f"nowait differs at {part}"
            filled = device.read_into_nowait(part.offset, memoryview(again))
            assert not filled or again == wanted, f"nowait differs at {part}, once hot"

    async def test_overlapping_reads_at_once_are_independent(self, subject: Subject) -> None:
        model = subject.model()
        found = list(ranges_between(subject.boundaries()))
        await at_once(
            check_bytes(subject.device, model, part) for part in (found + found[::-1])[:256]
        )

    async def test_a_stream_yields_the_range_in_order(self, subject: Subject) -> None:
        for offset, length in list(ranges_between(subject.boundaries()))[:32]:
            async with aclosing(subject.device.stream(offset, length)) as pieces:
                found = [bytes(piece) async for piece in pieces]
            assert all(found), "no piece is empty"
            assert b"".join(found) == subject.contents[offset : offset + length]

    async def test_a_stream_may_be_left_early(self, subject: Subject) -> None:
        for part in _parts(subject):
            async with aclosing(subject.device.stream(*part)) as pieces:
                piece = await anext(pieces)
            assert subject.contents[part.offset :].startswith(piece)
        assert await _read_all(subject) == subject.contents

    async def test_calls_of_no_length_do_nothing(self, subject: Subject) -> None:
        device, can = subject.device, subject.device.info.can
        for offset in (0, device.info.size):
            await device.read_into(offset, memoryview(bytearray()))
            assert device.read_into_nowait(offset, memoryview(bytearray())) in {True, False}
            outcome: asyncio.Future[Exception | None] = asyncio.Future()
            if device.begin_read(offset, memoryview(bytearray()), outcome.set_result):
                assert await outcome is None
            await device.cache(offset, 0)
            assert [piece async for piece in device.stream(offset, 0)] == []
            if can & Capability.WRITE:
                await device.write(offset, memoryview(b""), fua=False)
                await device.write_zeroes(offset, 0, fua=False, may_trim=True, fast=False)
                await device.trim(offset, 0, fua=False)
        assert await _read_all(subject) == subject.contents

    async def test_extents_cover_the_device_and_tell_the_truth(self, subject: Subject) -> None:
        for part in ranges_between(subject.boundaries()):
            await check_extents(subject.device, part)

    async def test_a_file_range_holds_the_same_bytes(self, subject: Subject) -> None:
        for offset, length in ranges_between(subject.boundaries()):
            place = subject.device.file_range(offset, length)
            if place is not None:
                found = os.pread(place.fd, length, place.offset)
                assert found == subject.contents[offset : offset + length]

    async def test_cache_changes_nothing(self, subject: Subject) -> None:
        for offset, length in ranges_between(subject.boundaries()):
            await subject.device.cache(offset, length)
        assert await _read_all(subject) == subject.contents

    @pytest.mark.parametrize("turns", _TURNS)
    async def test_cancelled_calls_leave_it_usable(self, subject: Subject, turns: int) -> None:
        device, parts = subject.device, _parts(subject)
        await cancel_after(turns, [device.extents(*part) for part in parts])
        await cancel_after(turns, [device.cache(*part) for part in parts])
        await cancel_after(turns, [read_slowly(device, part) for part in parts])
        await check_bytes(device, subject.model(), _whole(subject))

    @pytest.mark.parametrize("turns", _TURNS)
    @pytest.mark.parametrize("came_first", [False, True])
    async def test_cancelling_a_read_leaves_another_of_the_same_bytes(
        self, subject: Subject, turns: int, *, came_first: bool
    ) -> None:
        whole = _whole(subject)
        calls: list[Awaitable[None]] = [
            check_bytes(subject.device, subject.model(), whole),
            cancel_after(turns, [read_slowly(subject.device, whole)]),
        ]
        await at_once(calls[::-1] if came_first else calls)

    async def test_writes_at_every_boundary_change_their_bytes_alone(
        self, subject: Subject
    ) -> None:
        device, model, can = subject.device, subject.model(), subject.device.info.can
        for number, (offset, length) in enumerate(_writable(subject)):
            data = locatable(number, length)
            fua = bool(can & Capability.FUA) and number % 3 == 0
            await device.write(offset, memoryview(data), fua=fua)
            model.write(offset, data)
            await _check_around(subject, model, Range(offset, length))
        await check_bytes(device, model, _whole(subject))

    async def test_the_buffer_of_a_write_is_the_callers_again(self, subject: Subject) -> None:
        device, model = subject.device, subject.model()
        for offset, length in _parts(subject) if _writable(subject) else []:
            data = bytearray(locatable(1, length))
            await device.write(offset, memoryview(data), fua=False)
            model.write(offset, bytes(data))
            data[:] = bytes(length)
        await check_bytes(device, model, _whole(subject))

    async def test_writes_begun_without_a_task_are_done_once_and_whole(
        self, subject: Subject
    ) -> None:
        device, model, can = subject.device, subject.model(), subject.device.info.can
        for turn in range(2):  # the second time to where something was written before
            for number, (offset, length) in enumerate(_writable(subject)):
                data = memoryview(locatable(number + turn, length))
                fua = bool(can & Capability.FUA) and number % 3 == 0
                done: asyncio.Future[Exception | None] = asyncio.Future()
                if device.write_nowait(offset, data, fua=fua, done=done.set_result):
                    assert await done is None
                else:
                    assert not done.done(), "what was not begun is not told of"
                    await device.write(offset, data, fua=fua)
                model.write(offset, bytes(data))
                await _check_around(subject, model, Range(offset, length))
        await check_bytes(device, model, _whole(subject))
        flushed: asyncio.Future[Exception | None] = asyncio.Future()
        if device.flush_nowait(flushed.set_result):
            assert await flushed is None
        else:
            assert not flushed.done(), "what was not begun is not told of"

    async def test_adjacent_writes_at_once_do_not_disturb_one_another(
        self, subject: Subject
    ) -> None:
        device, model = subject.device, subject.model()
        if not _writable(subject):
            return
        calls: list[Awaitable[None]] = []
        for number, (start, end) in enumerate(pairwise(subject.boundaries())):
            if number % 4 == 3:
                calls.append(check_bytes(device, subject.model(), Range(start, end - start)))
                continue
            data = locatable(number, end - start)
            model.write(start, data)
            calls.append(device.write(start, memoryview(data), fua=False))
        await at_once([*calls, device.flush()])
        await check_bytes(device, model, _whole(subject))

    @pytest.mark.parametrize("may_trim", [False, True])
    @pytest.mark.parametrize("fast", [False, True])
    async def test_zeroes_are_zeroes_and_nothing_else_changes(
        self, subject: Subject, *, may_trim: bool, fast: bool
    ) -> None:
        device, model, can = subject.device, subject.model(), subject.device.info.can
        promised = can & (Capability.FAST_ZERO if fast else Capability.WRITE_ZEROES)
        for number, part in enumerate(_writable(subject) if promised else []):
            fua = bool(can & Capability.FUA) and number % 3 == 0
            await _fill(subject, model, part)
            try:
                await device.write_zeroes(*part, fua=fua, may_trim=may_trim, fast=fast)
            except NotSupportedError:
                assert fast, "only fast zeroing may be refused"  # contents untouched
            else:
                model.zero(*part)
            await _check_around(subject, model, part)
            await check_extents(device, part)
        await check_bytes(device, model, _whole(subject))

    async def test_trim_leaves_what_lies_beside_it(self, subject: Subject) -> None:
        device, model, can = subject.device, subject.model(), subject.device.info.can
        for number, part in enumerate(_writable(subject) if can & Capability.TRIM else []):
            await _fill(subject, model, part)
            await device.trim(*part, fua=bool(can & Capability.FUA) and number % 3 == 0)
            model.trim(*part)
            await _check_around(subject, model, part)
            await check_extents(device, part)
            if number % 2:
                await _fill(subject, model, part)
                await _check_around(subject, model, part)
        await check_bytes(device, model, _whole(subject))

    async def test_flush_changes_nothing(self, subject: Subject) -> None:
        if subject.device.info.can & Capability.FLUSH:
            await at_once(subject.device.flush() for _ in range(3))
        assert await _read_all(subject) == subject.contents

    @pytest.mark.parametrize("turns", _TURNS)
    async def test_cancelled_writes_leave_everything_else(
        self, subject: Subject, turns: int
    ) -> None:
        device, model, can = subject.device, subject.model(), subject.device.info.can
        for part in _parts(subject)[-1:] if _writable(subject) else []:
            data = memoryview(locatable(turns, part.length))
            calls = [device.write(part.offset, data, fua=bool(can & Capability.FUA))]
            if can & Capability.WRITE_ZEROES:
                calls.append(device.write_zeroes(*part, fua=False, may_trim=True, fast=False))
            if can & Capability.TRIM:
                calls.append(device.trim(*part, fua=False))
            model.lose(*part)
            await cancel_after(turns, [*calls, device.flush()])
            await check_bytes(device, model, _whole(subject))
            await device.flush()
        await check_bytes(device, model, _whole(subject))

    async def test_what_cannot_be_written_refuses(self, subject: Subject) -> None:
        device = subject.device
        if device.info.can & Capability.WRITE or not device.info.size:
            return
        length = device.info.block_size.minimum
        with pytest.raises(ReadOnlyError):
            await device.write(0, memoryview(bytes(length)), fua=False)
        assert await _read_all(subject) == subject.contents


def _whole(subject: Subject) -> Range:
    return Range(0, subject.device.info.size)


def _parts(subject: Subject) -> list[Range]:
    """List four ranges of the device that overlap, its middle last; none if it is empty."""
    size, minimum = subject.device.info.size, subject.device.info.block_size.minimum
    third = align_down(size // 3, minimum)
    parts = [Range(0, size), Range(third, size - third), Range(0, 2 * third), Range(third, third)]
    return [part for part in parts if part.length]


def _writable(subject: Subject) -> list[Range]:
    """List ranges to write to: at each boundary, up to the next ones and to either end."""
    spots = subject.boundaries()
    if not subject.device.info.can & Capability.WRITE:
        return []
    ends = [
        *pairwise(spots),
        *zip(spots, spots[3:], strict=False),
        *((spots[0], spot) for spot in spots[1::4]),
        *((spot, spots[-1]) for spot in spots[:-1:4]),
    ]
    return [Range(start, end - start) for start, end in ends]


async def _read_all(subject: Subject) -> bytes:
    return await subject.device.read(0, subject.device.info.size)


async def _fill(subject: Subject, model: Model, part: Range) -> None:
    data = locatable(part.offset, part.length)
    await subject.device.write(part.offset, memoryview(data), fua=False)
    model.write(part.offset, data)


async def _check_around(subject: Subject, model: Model, part: Range) -> None:
    """Check a range that was changed, and the block before and after it."""
    minimum, size = subject.device.info.block_size.minimum, subject.device.info.size
    start, end = max(part.offset - minimum, 0), min(part.end + minimum, size)
    await check_bytes(subject.device, model, Range(start, end - start))
