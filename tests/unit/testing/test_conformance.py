"""The suite and the state machine notice each way to break the contract; a sound device passes."""

import asyncio
import contextlib
import errno
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo, FileRange
from nbdserve.errors import DeviceError, NotSupportedError, ReadOnlyError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.testing.checks import locatable
from nbdserve.testing.conformance import DeviceConformance, Subject, state_machine_for
from nbdserve.testing.model import Model, boundaries, ranges_between

SIZE = 10_001
UNIT = 4096
CONTENTS = locatable(7, SIZE)
EVERYTHING = Capability.WRITES | Capability.CACHE | Capability.EXTENTS


class Sound(Device):
    """A small disk that keeps every rule; its faulty kin override one method."""

    can = EVERYTHING

    def __init__(self):
        self.data = bytearray(CONTENTS)

    @property
    def info(self):
        return DeviceInfo(SIZE, BlockSize(1, UNIT, 1 << 20), self.can)

    async def read_into(self, offset, view):
        await asyncio.sleep(0)
        view[:] = self.data[offset : offset + len(view)]

    def read_into_nowait(self, offset, view):
        if offset < UNIT:
            return False
        view[:] = self.data[offset : offset + len(view)]
        return True

    async def write(self, offset, data, *, fua):
        await asyncio.sleep(0)
        self.data[offset : offset + len(data)] = data

    async def write_zeroes(self, offset, length, *, fua, may_trim, fast):
        await asyncio.sleep(0)
        self.data[offset : offset + length] = bytes(length)

    async def extents(self, offset, length):
        state = DATA if any(self.data[offset : offset + length]) else ZERO_HOLE
        return [Extent(length, state)]


class ShortRead(Sound):
    async def read_into(self, offset, view):
        view[: len(view) - 1] = self.data[offset : offset + len(view) - 1]


class NowaitReadsStale(Sound):
    def read_into_nowait(self, offset, view):
        view[:] = CONTENTS[:1] * len(view)
        return True


class ReadsOneBlockOff(Sound):
    async def read_into(self, offset, view):
        at = offset + 1 if offset >= 2 * UNIT else offset
        view[:] = (self.data + b"x")[at : at + len(view)]


class SizeChanges(Sound):
    def __init__(self):
        super().__init__()
        self.size = SIZE

    @property
    def info(self):
        return DeviceInfo(self.size, BlockSize(), self.can)

    async def read_into(self, offset, view):
        await super().read_into(offset, view)
        self.size += 512


class TrimsButCannotBeWritten(Sound):
    can = Capability.TRIM

    async def write(self, offset, data, *, fua):
        raise ReadOnlyError("no")


class WritesThoughReadOnly(Sound):
    can = Capability.NONE


class RefusesWritesWrongly(Sound):
    can = Capability.NONE

    async def write(self, offset, data, *, fua):
        raise DeviceError("no", errno.EIO)


class WritesWholeUnits(Sound):
    """Reads a unit, waits, and writes it back: a write beside it is lost."""

    async def write(self, offset, data, *, fua):
        start, end = offset // UNIT * UNIT, -(-(offset + len(data)) // UNIT) * UNIT
        whole = self.data[start:end]
        whole[offset - start : offset - start + len(data)] = data
        await asyncio.sleep(0)
        self.data[start : start + len(whole)] = whole


class KeepsTheCallersBuffer(Sound):
    def __init__(self):
        super().__init__()
        self.last = (0, memoryview(b""))

    async def write(self, offset, data, *, fua):
        last_offset, last_data = self.last
        self.data[last_offset : last_offset + len(last_data)] = last_data
        self.last = (offset, data)

    async def read_into(self, offset, view):
        await self.write(0, memoryview(b""), fua=False)
        await super().read_into(offset, view)

    def read_into_nowait(self, offset, view):
        return False


class ZeroesToTheEndOfTheUnit(Sound):
    async def write_zeroes(self, offset, length, *, fua, may_trim, fast):
        end = min(-(-(offset + length) // UNIT) * UNIT, SIZE)
        self.data[offset:end] = bytes(end - offset)


class ForgetsToZero(Sound):
    async def write_zeroes(self, offset, length, *, fua, may_trim, fast):
        length = length if may_trim else length // 2
        self.data[offset : offset + length] = bytes(length)


class RefusesPlainZeroes(Sound):
    async def write_zeroes(self, offset, length, *, fua, may_trim, fast):
        raise NotSupportedError("no")


class ZeroesThenRefuses(Sound):
    async def write_zeroes(self, offset, length, *, fua, may_trim, fast):
        await super().write_zeroes(offset, length, fua=fua, may_trim=may_trim, fast=fast)
        if fast:
            raise NotSupportedError("no")


class TrimsTooMuch(Sound):
    async def trim(self, offset, length, *, fua):
        start = offset // UNIT * UNIT
        self.data[start : offset + length] = bytes(offset + length - start)


class CallsDataZero(Sound):
    async def extents(self, offset, length):
        return [Extent(length, ZERO_HOLE)]


class EmptyExtent(Sound):
    async def extents(self, offset, length):
        return [Extent(0, ZERO_HOLE), Extent(length, DATA)]


class ExtentsBeyond(Sound):
    async def extents(self, offset, length):
        return [Extent(length + 1, DATA)]


class ExtentsNotCoalesced(Sound):
    async def extents(self, offset, length):
        return [Extent(length - 1, DATA), Extent(1, DATA)] if length > 1 else [Extent(1, DATA)]


class NoExtents(Sound):
    async def extents(self, offset, length):
        return []


class StaysLockedWhenCancelled(Sound):
    def __init__(self):
        super().__init__()
        self.busy = False

    async def read_into(self, offset, view):
        if self.busy:
            raise DeviceError("locked")
        self.busy = True
        await asyncio.sleep(0)
        view[:] = self.data[offset : offset + len(view)]
        self.busy = False

    def read_into_nowait(self, offset, view):
        return False


class SharedReadIsCancelled(Sound):
    """Many readers of the same bytes share one task; the first that is cancelled cancels it."""

    def __init__(self):
        super().__init__()
        self.under_way = {}

    async def _fetch(self, offset, length):
        for _ in range(4):
            await asyncio.sleep(0)
        self.under_way.pop((offset, length), None)
        return self.data[offset : offset + length]

    async def read_into(self, offset, view):
        key = offset, len(view)
        if key not in self.under_way or self.under_way[key].done():
            self.under_way[key] = asyncio.ensure_future(self._fetch(*key))
        view[:] = await self.under_way[key]

    def read_into_nowait(self, offset, view):
        return False


class CancelledWriteSpoilsItsUnit(Sound):
    async def write(self, offset, data, *, fua):
        start = offset // UNIT * UNIT
        kept = self.data[start:offset]
        self.data[start : offset + len(data)] = bytes(offset + len(data) - start)
        await asyncio.sleep(0)
        self.data[start : offset + len(data)] = kept + data


class CacheSpoilsWhatItReads(Sound):
    async def cache(self, offset, length):
        self.data[offset : offset + 1] = b"\xff"[:length]


class FlushDrops(Sound):
    async def flush(self):
        self.data[-1:] = b"\xff"


class FileRangeElsewhere(Sound):
    def __init__(self):
        super().__init__()
        self.file = Path(__file__).open("rb")  # noqa: SIM115 -- closed below

    async def close(self):
        self.file.close()

    def file_range(self, offset, length):
        return FileRange(self.file.fileno(), offset)


NOTICED_BY = {
    ShortRead: "test_reads_at_every_boundary_are_whole",
    NowaitReadsStale: "test_reads_without_waiting_agree_with_reads",
    ReadsOneBlockOff: "test_a_read_touches_nothing_beside_its_view",
    SizeChanges: "test_its_facts_agree_with_one_another",
    TrimsButCannotBeWritten: "test_its_facts_agree_with_one_another",
    WritesThoughReadOnly: "test_what_cannot_be_written_refuses",
    RefusesWritesWrongly: "test_what_cannot_be_written_refuses",
    WritesWholeUnits: "test_adjacent_writes_at_once_do_not_disturb_one_another",
    KeepsTheCallersBuffer: "test_the_buffer_of_a_write_is_the_callers_again",
    ZeroesToTheEndOfTheUnit: "test_zeroes_are_zeroes_and_nothing_else_changes",
    ForgetsToZero: "test_zeroes_are_zeroes_and_nothing_else_changes",
    RefusesPlainZeroes: "test_zeroes_are_zeroes_and_nothing_else_changes",
    ZeroesThenRefuses: "test_zeroes_are_zeroes_and_nothing_else_changes",
    TrimsTooMuch: "test_trim_leaves_what_lies_beside_it",
    CallsDataZero: "test_extents_cover_the_device_and_tell_the_truth",
    EmptyExtent: "test_extents_cover_the_device_and_tell_the_truth",
    ExtentsBeyond: "test_extents_cover_the_device_and_tell_the_truth",
    ExtentsNotCoalesced: "test_extents_cover_the_device_and_tell_the_truth",
    NoExtents: "test_extents_cover_the_device_and_tell_the_truth",
    StaysLockedWhenCancelled: "test_cancelled_calls_leave_it_usable",
    SharedReadIsCancelled: "test_cancelling_a_read_leaves_another_of_the_same_bytes",
    CancelledWriteSpoilsItsUnit: "test_cancelled_writes_leave_everything_else",
    CacheSpoilsWhatItReads: "test_cache_changes_nothing",
    FlushDrops: "test_flush_changes_nothing",
    FileRangeElsewhere: "test_a_file_range_holds_the_same_bytes",
}
# What only a check of promises or of the caller's buffer can see, no sequence of operations.
UNSEEN_BY_RULES = {
    SizeChanges, TrimsButCannotBeWritten, WritesThoughReadOnly, RefusesWritesWrongly,
    KeepsTheCallersBuffer, FileRangeElsewhere,
}  # fmt: skip


@contextlib.asynccontextmanager
async def opened(cls):
    device = cls()
    try:
        yield Subject(device, CONTENTS)
    finally:
        await device.close()


async def run(name, cls):
    """Run one test of the suite with every combination of its parameters."""
    test = getattr(DeviceConformance(), name)
    marks = [mark.args for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    names = [parameter for parameter, _ in marks]
    for values in itertools.product(*(choices for _, choices in marks)):
        async with opened(cls) as subject:
            await test(subject, **dict(zip(names, values, strict=True)))


TESTS = [name for name in dir(DeviceConformance) if name.startswith("test_")]


@pytest.mark.parametrize("name", TESTS)
async def test_a_sound_device_passes(name):
    await run(name, Sound)


@pytest.mark.parametrize(("cls", "name"), NOTICED_BY.items())
async def test_a_fault_is_noticed(cls, name):
    with pytest.raises((AssertionError, DeviceError, pytest.fail.Exception)):
        await run(name, cls)


def run_machine(cls):
    run_state_machine_as_test(
        state_machine_for(lambda: opened(cls)),
        settings=settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=30,
            stateful_step_count=20,
            report_multiple_bugs=False,
            phases=settings().phases[:3],  # found is enough: no shrinking
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_state_machine_passes_a_sound_device():
    run_machine(Sound)


@pytest.mark.parametrize("cls", [cls for cls in NOTICED_BY if cls not in UNSEEN_BY_RULES])
def test_the_state_machine_notices_a_fault(cls):
    with pytest.raises((AssertionError, DeviceError)):
        run_machine(cls)


def test_the_state_machine_gives_its_factory_what_was_drawn():
    from hypothesis import strategies as st

    drawn = []

    def factory(*values):
        drawn.append(values)
        return opened(Sound)

    run_state_machine_as_test(
        state_machine_for(factory, st.just("source"), st.just("layers")),
        settings=settings(derandomize=True, database=None, max_examples=2, deadline=None),
    )
    assert set(drawn) == {("source", "layers")}


def test_a_suite_without_a_device_says_what_to_override():
    with pytest.raises(NotImplementedError, match="override"):
        DeviceConformance.open_subject.__wrapped__(DeviceConformance())


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 300_001])
def test_boundaries_lie_within_the_device_and_hold_both_ends(size):
    found = boundaries(size, 1, (4096, 65536))
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == size
    assert set(range(max(size - 1, 0), size + 1)) <= set(found)


def test_boundaries_are_whole_blocks():
    found = boundaries(512 * 100, 512, (4096,))
    assert all(spot % 512 == 0 for spot in found)
    assert {0, 512, 3584, 4096, 4608} <= set(found)


def test_ranges_between_spots_are_not_empty():
    assert list(ranges_between([0, 1, 5])) == [(0, 1), (0, 5), (1, 4)]
    assert list(ranges_between([0])) == []


def model(**promises):
    return Model(bytes(range(16)), **{"keeps_writes": True, "trim_zeroes": False, **promises})


def test_a_complaint_names_the_first_wrong_byte():
    assert model().complaint(4, bytes([4, 5, 6])) is None
    assert "wrong byte at 6 (in a read of 4 bytes at 4)" in model().complaint(4, b"\4\5\0\7")
    assert "past the end" in model().complaint(14, bytes([14, 15, 0]))


def test_trimmed_bytes_are_unknown_until_written():
    follows = model()
    follows.trim(2, 4)
    assert follows.complaint(0, b"\0\1????\6\7") is None
    follows.write(3, b"x")
    assert follows.complaint(0, b"\0\1?x??\6\7") is None
    assert "wrong byte at 3" in follows.complaint(0, b"\0\1????\6\7")


def test_trimmed_bytes_are_zero_where_that_is_promised():
    follows = model(trim_zeroes=True)
    follows.trim(2, 4)
    assert "wrong byte at 2" in follows.complaint(2, b"????")
    assert follows.complaint(2, bytes(4)) is None


def test_lost_bytes_stay_unknown():
    follows = model()
    follows.lose(2, 2)
    follows.write(0, b"abcd")
    follows.trim(2, 1)
    assert follows.complaint(0, b"ab??") is None


def test_a_device_that_forgets_writes_stays_what_it_was():
    follows = model(keeps_writes=False)
    follows.write(0, b"abcd")
    follows.zero(0, 4)
    follows.trim(0, 4)
    follows.lose(0, 4)
    assert follows.complaint(0, bytes(range(16))) is None
