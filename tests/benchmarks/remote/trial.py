"""One measurement: a web server, a contender, a work, all fresh, and what each of them used."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nbdserve.errors import NbdserveError
from remote.boot import boot, parse_reads
from remote.contenders import CONTENDERS, Contender, Job, can_persist
from remote.farlink import SERVER, FarLink
from remote.images import Image
from remote.layout import Block, length_of
from remote.plan import LOCAL, Row
from remote.processes import Usage, finished, running, usage
from remote.session import Session
from remote.trace import Read, ranges
from remote.web import Hits, Web, web
from remote.works import WORKS, Work

__all__ = ["Lab", "NotTriedError", "Sample"]

_SHARE = 0.6  # of the memory available that a contender may be expected to take


class NotTriedError(Exception):
    """A trial that would only show what is known; the text is for the table."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one trial showed.

    Attributes:
        seconds: it took.
        requests: to the web server, from the contender's start to its end.
        received: bytes of their bodies.
        cpu: user and system seconds of the contender, its start included.
        rss: the most memory it had resident, bytes.
        trips: round trips of the link, as measured, from the first packet to the first answer; None
            where that is not asked.
        blocks: that the work cannot do without.
        needed: bytes of the file that it cannot do without.
    """

    seconds: float
    requests: int = 0
    received: int = 0
    cpu: float = 0.0
    rss: int = 0
    trips: float | None = None
    blocks: int = 0
    needed: int = 0


@dataclass(slots=True)
class Lab:
    """Where trials are made.

    Attributes:
        images: by name.
        link: the far link, up if a row is on it.
        reads: what a boot reads, for the replay.
        scratch: a folder for everything that does not stay.
        within: seconds that a work may take.
        accel: how qemu runs guests.
        booted: what the local boot read, known after it.
        trip: a round trip of the far link as measured, seconds; None until it was.
    """

    images: dict[str, Image]
    link: FarLink
    reads: Sequence[Read]
    scratch: Path
    within: float
    accel: str
    booted: list[tuple[int, int]] = field(default_factory=list)
    trip: float | None = None
    _count: int = 0
    _filled: set[tuple[str, str, str]] = field(default_factory=set)

    def run(self, row: Row) -> Sample:
        """Make one trial.

        Raises:
            NotTriedError: this contender cannot do it, or not on this machine.
            RuntimeError: it could not be done, or was not done right; the text is for the table.
        """
        if row == LOCAL:
            return self._local()
        work, contender = WORKS[row.work], CONTENDERS[row.contender]
        if contender.persistent and not can_persist():
            raise NotTriedError("this nbdserve has no cache that outlives it")
        kept = (row.link, row.image, row.contender)
        if work.again and kept not in self._filled:
            self._trial(row, WORKS["boot"], contender, until=contender.until)
            self._filled.add(kept)
        return self._trial(row, work, contender)

    def needs(self, row: Row) -> list[Block]:
        """Return the blocks that a work on an xz file cannot do without."""
        layout = self.images[row.image].layout
        assert layout is not None
        reads = ranges(self.reads) if row.work == "replay" else self.booted
        return WORKS[row.work].needs(layout, reads)

    @contextlib.contextmanager
    def web(self, link: str, image: Image) -> Iterator[Web]:
        """Run a web server at the far end of a link."""
        far = link == "far"
        enter = self.link.server if far else []
        with web(image.path.parent, self.place(), SERVER if far else None, enter) as server:
            yield server

    def client(self, link: str) -> list[str]:
        """Return what a command begins with at the near end of a link."""
        return self.link.client if link == "far" else []

    def _local(self) -> Sample:
        place = self.place()
        trace = place / "reads"
        raw = next(iter(self.images.values())).raw
        seconds = boot(
            str(raw), log=place / "log", within=self.within, accel=self.accel, snapshot=True,
            trace=trace,
        )  # fmt: skip
        self.booted = parse_reads(trace.read_text(errors="replace"))
        return Sample(seconds)

    def _trial(self, row: Row, work: Work, contender: Contender, until: str = "") -> Sample:
        image = self.images[row.image]
        _refuse_if_large(work, contender, image)
        place = self.place()
        with self.web(row.link, image) as server:
            job = Job(
                url=server.url(image.path), sock=place / "sock", layout=image.layout,
                writable=work.writable, jumps=work.jumps,
                cache=self.scratch / f"{contender.name}-{row.link}-{row.image}",
            )  # fmt: skip
            argv = [*self.client(row.link), *contender.argv(job)]
            if work.away:
                server.stop()
            if contender.serves:
                sample = self._served(argv, work, image, place, server, until)
            else:
                began = time.monotonic()
                used = finished(argv, log=place / "client.log", within=self.within)
                sample = _sample(time.monotonic() - began, server.hits(), used)
        if image.layout is None:
            return replace(sample, needed=image.file_size)
        needs = self.needs(row)
        return replace(sample, blocks=len(needs), needed=length_of(needs))

    def _served(
        self, argv: list[str], work: Work, image: Image, place: Path, server: Web, until: str
    ) -> Sample:
        """Do a work on an NBD server, which has ended when this returns.

        Not before it has said `until` in its log.
        """
        began = time.monotonic()
        environment = {"TMPDIR": str(place)}
        with running(argv, log=place / "server.log", env=environment) as process:
            meter = Meter(process.pid, server)
            session = Session(
                process=process, started=began, sock=place / "sock", raw=image.raw,
                layout=image.layout, reads=self.reads, log=place / "client.log",
                within=self.within, accel=self.accel, restart=meter.restart,
            )  # fmt: skip
            try:
                seconds = work.run(session)
                session.told(place / "server.log", until)
            except (OSError, RuntimeError, NbdserveError, ExceptionGroup) as exc:
                raise RuntimeError(f"{exc} ({_last_words(place / 'server.log')})") from exc
            used = meter.used()
        hits = server.hits(meter.mark)
        sample = _sample(seconds, hits, used)
        if session.answered and hits.began:
            # the first request came one and a half round trips after the first packet was sent
            trips = (session.answered - hits.began) / (self.trip or self.link.rtt / 1000) + 1.5
            return replace(sample, trips=trips)
        return sample

    def place(self) -> Path:
        """Make a folder for one thing; its name is short, for sockets are in it."""
        self._count += 1
        place = self.scratch / str(self._count)
        place.mkdir()
        return place


class Meter:
    """Counts what a server uses, from its start or from a restart of the meter.

    Attributes:
        mark: the place in the web server's log.
    """

    def __init__(self, pid: int, server: Web) -> None:
        self._pid = pid
        self._server = server
        self._before = 0.0
        self.mark = 0

    def restart(self) -> None:
        """Count anew from here on."""
        self._before = usage(self._pid).cpu
        self.mark = self._server.mark()

    def used(self) -> Usage:
        """Tell what was used; the memory is counted from the start all the same."""
        now = usage(self._pid)
        return Usage(now.cpu - self._before, now.rss)


def _sample(seconds: float, hits: Hits, used: Usage) -> Sample:
    return Sample(seconds, hits.requests, hits.sent, used.cpu, used.rss)


def _refuse_if_large(work: Work, contender: Contender, image: Image) -> None:
    """Refuse what would take the machine's memory: a cache of decoded blocks a connection."""
    if image.layout is None:
        return
    touched = 1 if work.name in {"first", "middle", "readers"} else len(image.layout.blocks)
    depth = min(contender.deep if work.jumps else contender.depth, touched)
    wanted = work.connections * depth * image.layout.largest
    if wanted > _SHARE * _available():
        raise NotTriedError(f"it may hold {wanted / 2**30:.0f} GiB in memory")


def _available() -> int:
    """Return the bytes of memory that are to be had (proc(5), MemAvailable)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(found.split()[1]) * 1024


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
