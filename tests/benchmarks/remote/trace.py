"""What a boot reads, recorded once, and in which order it has to be asked for.

The trace tells when each read was sent and answered. Replayed at full speed, a read is sent as soon
as every read is answered that had been answered before it was sent in the recording: the guest's
own dependencies remain, its computing is left out.
"""

import asyncio
import csv
import gzip
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["RECORDED", "Read", "fit", "load", "ranges", "replay"]

RECORDED = Path(__file__).with_name("boot-trace.csv.gz")

_SECTOR = 512


class Read(NamedTuple):
    """One read: where, and when it was sent and answered (seconds)."""

    offset: int
    length: int
    sent: float
    answered: float


def load(path: Path = RECORDED) -> list[Read]:
    """Read a trace, in order of sending."""
    with gzip.open(path, "rt", newline="") as file:
        rows = csv.DictReader(file)
        reads = [
            Read(int(row["offset"]), int(row["length"]), float(row["time"]), float(row["done"]))
            for row in rows
        ]
    return sorted(reads, key=lambda read: read.sent)


def fit(reads: Iterable[Read], size: int) -> list[Read]:
    """Move the reads that lie beyond a smaller image into it, with their neighbours."""
    return [
        read if read.offset + read.length <= size
        else read._replace(offset=min(read.offset % size, size - read.length) // _SECTOR * _SECTOR)
        for read in reads
    ]  # fmt: skip


async def replay(reads: Iterable[Read], ask: Callable[[int, int], Awaitable[object]]) -> None:
    """Ask for every read as soon as those are answered that it waited for."""
    flying: dict[asyncio.Task[None], float] = {}

    async def one(read: Read) -> None:
        await ask(read.offset, read.length)

    async with asyncio.TaskGroup() as group:
        for read in reads:
            before = [task for task, answered in flying.items() if answered <= read.sent]
            if before:
                await asyncio.wait(before)
                for task in before:
                    del flying[task]
            flying[group.create_task(one(read))] = read.answered


def ranges(reads: Iterable[Read]) -> list[tuple[int, int]]:
    """Return the ranges that are read, without repeats."""
    return sorted({(read.offset, read.length) for read in reads})
