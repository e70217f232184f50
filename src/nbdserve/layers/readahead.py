"""readahead: fetch what a reader will ask for next, before it does.

`nbdserve.sequences` tells who reads in order; what lies ahead of such a reader is read in units
into memory, neighbours together, and kept until it was had. All other reads go beneath as they are:
a random reader costs no read more and no byte more.

Invariants: memory is bounded by `size`; a unit that was read ahead is dropped only when it was read
to its end, or waited for its reader for long; a failed read ahead is nobody's error, for who needs
those bytes asks for them again; a write drops what it touched (`layers/writethrough`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from nbdserve.blockcache import BlockCache, Claim, Weighed
from nbdserve.buffers import zeroed_buffer
from nbdserve.device import Capability, Device, DeviceInfo, Passthrough
from nbdserve.layers.writethrough import WriteThrough
from nbdserve.params import SIZE, param
from nbdserve.ranges import Piece, align_up, pieces
from nbdserve.sequences import Sequences

__all__ = ["ReadaheadLayer", "ReadaheadParams"]

_LOADS: Final = 16  # reads beneath at once
_RUN: Final = 1 << 20  # bytes brought by one of them, at most
_UNIT: Final = 256 << 10  # what nbdcopy and qemu-img ask for at once
_SHARES: Final = 16  # units that `size` holds at least: four readers, each with some ahead
_PROOF: Final = 64 << 10  # bytes read in order before anything is read ahead
_SLACK: Final = 4 << 20
_READERS: Final = 4  # that can have their whole window ahead: nbdcopy's connections
_PATIENCE: Final = 2  # times `size` bytes read: after that a unit nobody came for may be dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadaheadParams:
    """How much may be read ahead."""

    size: int = param(
        SIZE, default=64 << 20, help="memory for what was read ahead, of all readers together"
    )
    window: int = param(
        SIZE, default=16 << 20, help="how far to be ahead of one reader, at most a quarter of size"
    )


class ReadaheadLayer(WriteThrough, Passthrough):
    """Read ahead of clients that read in order.

    Use it above a source with latency (`http`, a network disk) for clients that ask for one piece
    after another: a copy, a virus scan, a guest that loads a large file. How far it reads ahead
    grows with what a client has read in order; many clients are told apart, and one that reads at
    random causes no extra read. What was read ahead is kept until it is asked for. The xz layer
    reads ahead by itself, and `file` leaves it to the kernel.

        nbdserve --layer readahead http https://example.org/disk.img
        nbdserve --layer readahead:size=256M,window=32M http https://example.org/disk.img
    """

    Params = ReadaheadParams
    shareable = True

    _unit: int
    _size: int
    _sequences: Sequences

    def __init__(self, inner: Device, params: ReadaheadParams) -> None:
        super().__init__(inner)
        self._params = params
        self._units: BlockCache[int, memoryview] = BlockCache(params.size, loads=_LOADS)
        self._unread: dict[int, int] = {}  # units begun, the oldest first: after how many bytes
        self._had: dict[int, None] = {}  # units read to their end, the first one first
        self._bytes = 0  # read by clients so far
        self._begun = 0

    @property
    def info(self) -> DeviceInfo:
        beneath = self.inner.info
        return replace(beneath, can=beneath.can | Capability.CACHE)

    def status(self) -> Mapping[str, int | float | str | bool]:
        return {"held": self._units.weight, "limit": self._params.size, "reads_ahead": self._begun}

    async def open(self, *, read_only: bool) -> None:
        info = self.inner.info
        self._size = info.size
        self._unit = _unit(self._params.size, info.block_size.minimum)
        self._sequences = Sequences(
            slack=_SLACK,
            smallest=self._unit,
            largest=max(self._unit, min(self._params.window, self._params.size // _READERS)),
            proof=min(_PROOF, self._unit),
        )

    async def close(self) -> None:
        await super().close()
        await self._units.close()

    # Reading

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        ahead = self._sequences.observe(offset, len(view))
        # where more is to be read ahead, a waiting read gets it on its way
        if not self._is_due(ahead) and self._copy_held(offset, view):
            self._bytes += len(view)
            return True
        return self.inner.read_into_nowait(offset, view)

    async def read_into(self, offset: int, view: memoryview) -> None:
        self._bytes += len(view)
        ahead = self._sequences.observe(offset, len(view))
        if self._is_due(ahead):
            self._begin_all(ahead.start, ahead.stop)
        claimed: list[tuple[Piece, Claim[int, memoryview]]] = []
        missing: list[tuple[int, int]] = []
        try:
            for piece in pieces(offset, len(view), self._unit):
                if self._copy(piece, view):
                    continue
                claim = self._units.join(piece.unit)
                if claim is not None:
                    claimed.append((piece, claim))
                elif missing and missing[-1][1] == piece.at:
                    missing[-1] = (missing[-1][0], piece.at + piece.length)
                else:
                    missing.append((piece.at, piece.at + piece.length))
            for at, end in missing:
                await self.inner.read_into(offset + at, view[at:end])
            for piece, claim in claimed:
                await self._take(piece, claim, view)
        finally:
            for _, claim in claimed:
                claim.leave()

    async def cache(self, offset: int, length: int) -> None:
        if self.inner.info.can & Capability.CACHE:
            await self.inner.cache(offset, length)
            return
        begun = self._begin_all(offset - offset % self._unit, offset + length)
        claims = [(run, claim) for run in begun if (claim := self._units.join(run.start))]
        try:
            for run, claim in claims:
                await claim.wait(run.start)
        finally:
            for _, claim in claims:
                claim.leave()

    def _copy_held(self, offset: int, view: memoryview) -> bool:
        return all(self._copy(piece, view) for piece in pieces(offset, len(view), self._unit))

    def _copy(self, piece: Piece, view: memoryview) -> bool:
        """Fill a piece of a read from its unit, if that is held."""
        data = self._units.get_nowait(piece.unit)
        if data is None:
            return False
        self._fill(piece, data, view)
        return True

    async def _take(self, piece: Piece, claim: Claim[int, memoryview], view: memoryview) -> None:
        """Fill a piece of a read from its unit when that is there, or from beneath if it fails."""
        try:
            data = await claim.wait(piece.unit)
        except OSError:
            offset = piece.unit * self._unit + piece.start
            await self.inner.read_into(offset, view[piece.at : piece.at + piece.length])
        else:
            self._fill(piece, data, view)

    def _fill(self, piece: Piece, data: memoryview, view: memoryview) -> None:
        end = piece.start + piece.length
        view[piece.at : piece.at + piece.length] = data[piece.start : end]
        if end == len(data) and self._unread.pop(piece.unit, None) is not None:
            self._had[piece.unit] = None

    # Reading ahead

    def _is_due(self, ahead: range) -> bool:
        """Tell whether so much is missing of what should be ahead that it is worth a read."""
        if not ahead:
            return False
        stop = min(ahead.stop, self._size)
        # of a large window a whole run, so that few reads do; of a small one the half
        worth = 1 if stop == self._size else min(_RUN, len(ahead) // 2)
        return (stop - worth) // self._unit not in self._units

    def _first(self, offset: int) -> int:
        """Find the first unit that begins at `offset` or after it."""
        return align_up(offset, self._unit) // self._unit

    def _begin_all(self, offset: int, end: int) -> list[range]:
        """Begin to read the units from the first whole one on, until there is no room for more."""
        wanted = range(self._first(offset), self._first(min(end, self._size)))
        begun: list[range] = []
        for run in self._missing(wanted, max(1, _RUN // self._unit)):
            if not self._begin(run):
                break
            begun.append(run)
        return begun

    def _missing(self, wanted: range, most: int) -> Iterator[range]:
        """Give the units neither held nor on their way, neighbours together."""
        number = wanted.start
        while number < wanted.stop:
            stop = number
            while stop < min(number + most, wanted.stop) and stop not in self._units:
                stop += 1
            if stop > number:
                yield range(number, stop)
            number = max(stop, number + 1)

    def _begin(self, run: range) -> bool:
        weight = len(run) * self._unit
        self._make_room(len(run), weight)
        load = partial(self._load, run)
        if not self._units.start_ahead(run, load, weight, spare=lambda _: False):
            return False
        self._begun += 1
        for number in run:
            self._had.pop(number, None)
            self._unread.pop(number, None)
            self._unread[number] = self._bytes
        return True

    def _make_room(self, units: int, weight: int) -> None:
        """Drop what was had, the oldest first, then what nobody came for."""
        patience = _PATIENCE * self._params.size
        while not self._units.has_free(units, weight):
            if self._had:
                number = next(iter(self._had))
                del self._had[number]
            elif self._unread:
                number, begun = next(iter(self._unread.items()))
                if self._bytes - begun < patience and number in self._units:
                    return
                del self._unread[number]
            else:
                return
            self._units.discard((number,))

    async def _load(self, run: range) -> list[Weighed[memoryview]]:
        """Read a run of units at once; each is kept in memory of its own, to be freed alone."""
        begin = run.start * self._unit
        buffer = zeroed_buffer(min(run.stop * self._unit, self._size) - begin)
        if not self.inner.read_into_nowait(begin, buffer):
            await self.inner.read_into(begin, buffer)
        if len(run) == 1:
            return [Weighed(buffer, len(buffer))]
        units = (buffer[at : at + self._unit] for at in range(0, len(buffer), self._unit))
        return [Weighed(memoryview(bytes(unit)), len(unit)) for unit in units]

    def _forget(self, offset: int, length: int) -> None:
        self._units.discard(range(offset // self._unit, self._first(offset + length)))


def _unit(size: int, minimum: int) -> int:
    """Choose the unit of reading ahead, a power of two: many of them must fit into `size`."""
    unit = _UNIT
    while unit > 4096 and unit * _SHARES > size:
        unit //= 2
    return max(unit, minimum)
