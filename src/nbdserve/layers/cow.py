"""cow: a writable device over one that is only read.

Every cluster is in one of three states: the base's, written (it lies in the overlay file, at the
same offset), or zero. `overlay.clusters` plans each request from these states; here the plan is
carried out.

Invariants:

- A cluster's state changes after its bytes are in the overlay file, never before, so a reader,
  which takes no lock, finds old or new bytes and never anything else.
- A cluster becomes DATA only with all of its bytes written: what the request did not bring is
  copied from the base, or is zero. So what lies in the file under a BASE or ZERO cluster (after a
  cancelled write, or where a file system cannot punch) is never seen.
- Writers hold the clusters they touch, and a write that has begun in a thread is waited for even
  when its request is cancelled: it cannot land on top of a later one.
- Persistent: flush and FUA return after a commit that began after they were called; its order is
  the matter of `overlay.overlayfile`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from nbdserve.datafile import DataFile
from nbdserve.device import Capability, Device, DeviceInfo, Done, FileRange, Layer
from nbdserve.errors import ConfigError, DeviceError, NotSupportedError
from nbdserve.extents import DATA, ZERO_HOLE, Extent, clip, coalesce
from nbdserve.overlay.clusters import ClusterState, Run, spans
from nbdserve.overlay.groupcommit import GroupCommit
from nbdserve.overlay.opening import open_overlay, open_scratch, refuse_cluster
from nbdserve.overlay.overlayfile import OverlayFile
from nbdserve.overlay.rangelock import RangeLock
from nbdserve.overlay.writebatch import WriteBatch
from nbdserve.params import PATH, SIZE, param
from nbdserve.threads import run_io
from nbdserve.unbroken import run_unbroken

__all__ = ["CowLayer", "CowParams"]

_GAP = 256 << 10  # read over so many bytes of the base rather than ask a remote one twice
_MOST_EXTENTS = 1024
_ZEROES = bytes(1 << 20)
_BASE, _DATA = int(ClusterState.BASE), int(ClusterState.DATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class CowParams:
    """Where the written clusters go, and how large they are."""

    path: Path | None = param(
        PATH,
        default=None,
        help="keep what is written in this file, to go on after a restart (default: in a "
        "temporary file that is gone at the end)",
    )
    dir: Path | None = param(
        PATH, default=None, help="folder of the temporary file (default: $TMPDIR, else /var/tmp)"
    )
    cluster: int | None = param(
        SIZE,
        default=None,
        help="bytes copied and tracked as one, a power of two (default: 64K, more over 16T, or "
        "what an existing overlay has)",
    )


class CowLayer(Layer):
    """Make a read-only device writable: what is written goes to an overlay file (copy-on-write).

    Use it to boot a guest from a golden or remote image without changing it. Without `path` the
    changes live in an unlinked temporary file and are gone when the export is closed. With `path`
    they are kept: the file is made when it does not exist, and fits only the base it was made
    over (size, first and last 64 KiB, ETag or the like). It is locked, survives a crash, and what
    was flushed or written with FUA is in it. Both are sparse: trimmed and zeroed clusters take no
    space.

        nbdserve --layer cow --layer xz http https://example.com/image.raw.xz
        nbdserve --layer cow:path=/var/lib/vm/web1.cow file golden.img
    """

    Params = CowParams
    writes_inner: ClassVar[bool] = False

    def __init__(self, inner: Device, params: CowParams) -> None:
        super().__init__(inner)
        _refuse_params(params)
        self._params = params
        self._file: DataFile | None = None  # None: read-only, and nothing was ever written
        self._commits: GroupCommit | None = None  # only for what is to outlive the process
        self._locks = RangeLock()
        self._writes = WriteBatch(lambda offset, data: self._data.write(offset, (data,)), None)

    @classmethod
    def keeps(cls, params: CowParams) -> Sequence[Path]:
        return () if params.path is None else (params.path,)

    async def open(self, *, read_only: bool) -> None:
        """Open or make the overlay.

        Raises:
            ConfigError: the cluster size does not suit the base.
            DeviceError: the overlay is another base's, damaged, in use, or cannot be made.
        """
        beneath, path, cluster = self.inner.info, self._params.path, self._params.cluster
        if path is None:
            self._file, self._clusters, self._cluster = await open_scratch(
                self._params.dir, beneath, cluster, read_only=read_only
            )
        else:
            self._file, self._clusters, self._cluster = await open_overlay(
                path, self.inner, cluster, read_only=read_only
            )
            if not read_only:
                self._commits = GroupCommit(self._commit)
        self._info = _info_over(beneath, self._cluster, read_only=read_only)

    async def close(self) -> None:
        try:
            await self._writes.close()
            if self._commits is not None:
                await self._commits()
                await self._commits.close()
                await run_unbroken(self._overlay.seal)
        finally:
            if self._file is not None:
                self._file.close()

    @property
    def info(self) -> DeviceInfo:
        return self._info

    # Reading

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        around = self._clusters.state_around(offset, len(view))
        if around == _BASE:
            return self.inner.read_into_nowait(offset, view)
        if around == _DATA:
            return self._data.read_nowait(offset, view)
        for state, at, length in self._clusters.runs(offset, len(view)):
            part = view[at : at + length]
            if state is ClusterState.BASE:
                if not self.inner.read_into_nowait(offset + at, part):
                    return False
            elif state is ClusterState.ZERO:
                _fill_zeroes(part)
            elif not self._data.read_nowait(offset + at, part):
                return False
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        runs = list(self._clusters.runs(offset, len(view)))
        # the base first: a span of it covers what lies between its runs, which is filled after
        for span in spans(runs, _GAP):
            await self._read_base(offset, view, span)
        cold = []
        for state, at, length in runs:
            part = view[at : at + length]
            if state is ClusterState.ZERO:
                _fill_zeroes(part)
            elif state is ClusterState.DATA and not self._data.read_nowait(offset + at, part):
                cold.append((offset + at, part))
        if cold:
            await run_io(self._read_cold, cold)

    def begin_read(self, offset: int, view: memoryview, done: Done) -> bool:
        """Only what was never written is begun: it is the base's alone."""
        first, stop = self._clusters.touched(offset, len(view))
        if not self._clusters.is_all(ClusterState.BASE, first, stop):
            return False
        return self.inner.begin_read(offset, view, done)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        first, stop = self._clusters.touched(offset, length)
        if self._clusters.is_all(ClusterState.BASE, first, stop):
            return self.inner.file_range(offset, length)
        if self._clusters.is_all(ClusterState.DATA, first, stop):
            return FileRange(*self._data.place(offset))
        return None

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        found: list[Extent] = []
        for state, at, run in self._clusters.runs(offset, length):
            if state is ClusterState.BASE:
                beneath = clip(await self.inner.extents(offset + at, run), run)
                found += beneath
                if sum(extent.length for extent in beneath) < run:
                    break  # what follows would not be contiguous; the caller asks again
            else:
                found.append(Extent(run, DATA if state is ClusterState.DATA else ZERO_HOLE))
            if len(found) >= _MOST_EXTENTS:
                break
        return coalesce(found)

    async def cache(self, offset: int, length: int) -> None:
        for state, at, run in self._clusters.runs(offset, length):
            if state is ClusterState.BASE:
                await self.inner.cache(offset + at, run)
            elif state is ClusterState.DATA:
                await run_io(self._data.prefetch, offset + at, run)

    # Writing

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        if len(data):
            async with self._locks.hold(*self._clusters.touched(offset, len(data))):
                await self._write_held(offset, data)
        if fua:
            await self.flush()

    def write_nowait(self, offset: int, data: memoryview, *, fua: bool, done: Done) -> bool:
        """Only what was written before is written at once: nothing is copied, no state changes."""
        first, stop = self._clusters.touched(offset, len(data))
        if not self._clusters.is_all(ClusterState.DATA, first, stop):
            return False
        release = self._locks.hold_nowait(first, stop)
        if release is None:
            return False

        def written(error: Exception | None) -> None:
            release()
            if error is None and fua and self._commits is not None:
                self._commits.add(done)
            else:
                done(error)

        if self._data.write_nowait(offset, data):
            written(None)
        else:
            self._writes.add(offset, data, fua=False, done=written)
        return True

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool, may_trim: bool, fast: bool
    ) -> None:
        """Whole clusters become zero without a write, whatever `may_trim` says."""
        if fast and self._is_slow_to_zero(offset, length):
            raise NotSupportedError(
                "cow: less than a cluster is zeroed by copying it from the base"
            )
        async with self._locks.hold(*self._clusters.touched(offset, length)):
            for start, part in self._clusters.partials(offset, length):
                await self._zero_part(start, part, may_trim=may_trim)
            await self._drop(*self._clusters.whole(offset, length))
        if fua:
            await self.flush()

    async def trim(self, offset: int, length: int, *, fua: bool) -> None:
        """Whole clusters become zero; of a written one a part is punched, of the base's nothing."""
        async with self._locks.hold(*self._clusters.touched(offset, length)):
            for start, part in self._clusters.partials(offset, length):
                if self._clusters[start // self._cluster] is ClusterState.DATA:
                    await run_unbroken(self._data.punch, start, part)
            await self._drop(*self._clusters.whole(offset, length))
        if fua:
            await self.flush()

    async def flush(self) -> None:
        """Make what was written durable; a temporary overlay ends with its process anyway."""
        if self._commits is not None:
            await self._commits()

    def flush_nowait(self, done: Done) -> bool:
        if self._commits is None:
            done(None)
        else:
            self._commits.add(done)
        return True

    @property
    def _data(self) -> DataFile:
        assert self._file is not None, "only a writable overlay has written clusters"
        return self._file

    @property
    def _overlay(self) -> OverlayFile:
        assert isinstance(self._file, OverlayFile), "only a persistent overlay is committed"
        return self._file

    async def _read_base(self, offset: int, view: memoryview, span: Sequence[Run]) -> None:
        start, end = span[0].at, span[-1].at + span[-1].length
        try:
            await _read_device(self.inner, offset + start, view[start:end])
        except DeviceError:
            if len(span) == 1:
                raise
            # what cannot be read may be between the runs, where nobody wants it
            for _, at, length in span:
                await _read_device(self.inner, offset + at, view[at : at + length])

    def _read_cold(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        for offset, part in parts:
            self._data.read(offset, part)

    async def _write_held(self, offset: int, data: memoryview) -> None:
        """Write to clusters that are held; those not yet written are completed first."""
        first, stop = self._clusters.touched(offset, len(data))
        head, tail = await self._edges(offset, offset + len(data), first, stop)
        await run_unbroken(self._data.write, offset - len(head), (head, data, tail))
        self._clusters.put(ClusterState.DATA, first, stop)

    async def _edges(self, offset: int, end: int, first: int, stop: int) -> tuple[bytes, bytes]:
        """Return what a write must bring along before `offset` and after `end`."""
        start, finish = first * self._cluster, min(stop * self._cluster, self._info.size)
        state, last = self._clusters[first], self._clusters[stop - 1]
        head = 0 if state is ClusterState.DATA else offset - start
        tail = 0 if last is ClusterState.DATA else finish - end
        if head and tail and stop - first == 1 and state is ClusterState.BASE:
            whole = await self.inner.read(start, finish - start)
            return whole[:head], whole[-tail:]
        return await self._old(state, start, head), await self._old(last, end, tail)

    async def _old(self, state: ClusterState, offset: int, length: int) -> bytes:
        if length and state is ClusterState.BASE:
            return await self.inner.read(offset, length)
        return bytes(length)

    def _is_slow_to_zero(self, offset: int, length: int) -> bool:
        """Tell whether zeroing comes down to a copy from the base and nothing else."""
        first, stop = self._clusters.whole(offset, length)
        return first == stop and self._clusters.has(
            ClusterState.BASE, *self._clusters.touched(offset, length)
        )

    async def _zero_part(self, offset: int, length: int, *, may_trim: bool) -> None:
        """Zero less than a cluster, which is held."""
        state = self._clusters[offset // self._cluster]
        if state is ClusterState.ZERO:
            return
        punched = state is ClusterState.DATA and may_trim
        if punched and await run_unbroken(self._data.punch, offset, length):
            return
        for at in range(0, length, len(_ZEROES)):
            part = memoryview(_ZEROES)[: min(length - at, len(_ZEROES))]
            await self._write_held(offset + at, part)

    async def _drop(self, first: int, stop: int) -> None:
        """Make whole clusters, which are held, zero, and give their space back."""
        if self._clusters.has(ClusterState.DATA, first, stop):
            start, finish = first * self._cluster, min(stop * self._cluster, self._info.size)
            await run_unbroken(self._data.punch, start, finish - start)
        self._clusters.put(ClusterState.ZERO, first, stop)

    async def _commit(self) -> None:
        # the pages first: each state in them has its bytes in the file by now, and the commit
        # makes all of these bytes durable before it writes the pages
        pages = self._clusters.take_dirty()
        try:
            await run_unbroken(self._overlay.commit, pages)
        except BaseException:
            self._clusters.give_back(pages)
            raise


async def _read_device(device: Device, offset: int, view: memoryview) -> None:
    if not device.read_into_nowait(offset, view):
        await device.read_into(offset, view)


def _fill_zeroes(view: memoryview) -> None:
    for at in range(0, len(view), len(_ZEROES)):
        part = view[at : at + len(_ZEROES)]
        part[:] = memoryview(_ZEROES)[: len(part)]


def _info_over(beneath: DeviceInfo, cluster: int, *, read_only: bool) -> DeviceInfo:
    can = beneath.can & (Capability.CACHE | Capability.ROTATIONAL) | Capability.EXTENTS
    if not read_only:
        can |= Capability.WRITES
    block_size = beneath.block_size
    return replace(
        beneath,
        can=can,
        block_size=block_size._replace(preferred=max(block_size.preferred, cluster)),
    )


def _refuse_params(params: CowParams) -> None:
    if params.path is not None and params.dir is not None:
        raise ConfigError(
            "goes with a temporary file, path= names one to keep; leave one of them out",
            table="layer cow",
            key="dir",
        )
    if params.cluster is not None:
        refuse_cluster(params.cluster)
