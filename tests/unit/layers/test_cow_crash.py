"""What is left of a persistent overlay when its process or its machine ends at any moment."""

import asyncio
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import cow_writer
from cow_chain import contents, opened, pattern
from nbdserve.datafile import DataFile
from nbdserve.overlay.overlayfile import OverlayFile

SECTOR = 512  # what disks write as one
CLUSTER = 4096
SIZE = 8 * CLUSTER


@pytest.mark.parametrize("acknowledged", [1, 100, 1500])
async def test_each_acknowledged_write_survives_kill_9(tmp_path, acknowledged):
    path = tmp_path / "vm.cow"
    durable, reached = {}, {}
    with subprocess.Popen(
        [sys.executable, cow_writer.__file__, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        for line in writer.stdout:
            slot, number = map(int, line.split())
            durable[slot] = number
            acknowledged -= 1
            if acknowledged == 0:
                writer.kill()  # what it said before it died is read and counts
        assert writer.wait() == -9
    for slot, number in durable.items():
        task = slot % cow_writer.TASKS
        reached[task] = max(reached.get(task, 0), number)
    base = await contents(pattern(cow_writer.SIZE))
    async with opened(pattern(cow_writer.SIZE), path=path) as layer:
        found = await contents(layer)
    for slot in range(cow_writer.SLOTS):
        begin = slot * cow_writer.SLOT
        written = found[begin : begin + cow_writer.SLOT]
        if slot in durable:
            last = int.from_bytes(written[:8], "big")
            assert written == cow_writer.block(last)
            assert last >= durable[slot]
        elif written != base[begin : begin + cow_writer.SLOT]:
            # begun and not acknowledged: the one its task was at
            at = reached.get(slot % cow_writer.TASKS, 0) + 1
            assert written == cow_writer.block(at)


@dataclass
class Disk:
    """Notes what reaches the disk's cache, and what a sync then makes durable."""

    events: list = field(default_factory=list)
    writes: dict = field(default_factory=dict)
    ended: set = field(default_factory=set)

    def watch(self, monkeypatch):
        plain_write, plain_punch, plain_sync = DataFile.write, DataFile.punch, OverlayFile._sync

        def write(file, offset, buffers):
            number = self._begin(file._start + offset, b"".join(buffers))
            plain_write(file, offset, buffers)
            self.ended.add(number)

        def punch(file, offset, length):
            number = self._begin(file._start + offset, bytes(length))
            done = plain_punch(file, offset, length)
            self.ended.add(number)
            return done

        def sync(file):
            covered = frozenset(self.ended)
            plain_sync(file)
            self.events.append(("durable", covered))

        monkeypatch.setattr(DataFile, "write", write)
        monkeypatch.setattr(DataFile, "punch", punch)
        monkeypatch.setattr(OverlayFile, "_sync", sync)

    def _begin(self, position, data):
        number = len(self.writes)
        self.writes[number] = (position, data)
        self.events.append(("write", number))
        return number

    def image(self, start, until, rng):
        """Make what the disk may hold after the power failed before event `until`."""
        image = bytearray(start)
        begun, durable = [], set()
        for kind, what in self.events[:until]:
            if kind == "write":
                begun.append(what)
            elif kind == "durable":
                durable |= what
        for number in begun:
            position, data = self.writes[number]
            if number in durable:
                image[position : position + len(data)] = data
                continue
            how = rng.choice(["whole", "lost", "torn"])
            for at in range(0, len(data), SECTOR):
                if how == "whole" or (how == "torn" and rng.random() < 0.5):
                    part = data[at : at + SECTOR]
                    image[position + at : position + at + len(part)] = part
        return image


class Client:
    """Writes and zeroes sectors, and knows what each may hold after a crash."""

    def __init__(self, layer, disk, base):
        self._layer = layer
        self._disk = disk
        self._versions = {n: [("base", base[n * SECTOR :][:SECTOR])] for n in range(SIZE // SECTOR)}
        self._acknowledged = set()
        self._count = 0

    async def change(self, first, stop, *, data, fua):
        number = self._count = self._count + 1
        for sector in range(first, stop):
            self._versions[sector].append((number, data or bytes(SECTOR)))
        self._disk.events.append(("begun", number))
        offset, length = first * SECTOR, (stop - first) * SECTOR
        if data is None:
            await self._layer.write_zeroes(offset, length, fua=fua, may_trim=True, fast=False)
        else:
            await self._layer.write(offset, memoryview(data * (stop - first)), fua=fua)
        self._acknowledged.add(number)
        if fua:
            self._disk.events.append(("kept", {number}))

    async def flush(self):
        before = set(self._acknowledged)
        await self._layer.flush()
        self._disk.events.append(("kept", before))

    def check(self, found, until):
        begun, kept = {"base"}, {"base"}
        for kind, what in self._disk.events[:until]:
            if kind == "begun":
                begun.add(what)
            elif kind == "kept":
                kept |= what
        for sector, versions in self._versions.items():
            known = [version for version in versions if version[0] in begun]
            oldest = max(at for at, version in enumerate(known) if version[0] in kept)
            allowed = [data for _, data in known[oldest:]]
            assert found[sector * SECTOR :][:SECTOR] in allowed, f"sector {sector}, event {until}"


async def work(client, rng):
    """Change ranges of sectors, several at a time, that share clusters but no sector."""
    for _ in range(6):
        borders = sorted(rng.sample(range(SIZE // SECTOR + 1), 6))
        changes = [
            client.change(
                first,
                stop,
                data=None if rng.random() < 0.3 else rng.randbytes(SECTOR),
                fua=rng.random() < 0.3,
            )
            for first, stop in zip(borders[::2], borders[1::2], strict=True)
        ]
        await asyncio.gather(*changes, *(client.flush() for _ in range(rng.randrange(2))))


@pytest.mark.parametrize("seed", range(6))
async def test_whenever_the_power_fails_what_was_acknowledged_is_there(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    path: Path = tmp_path / "vm.cow"
    base = await contents(pattern(SIZE))
    disk = Disk()
    async with opened(pattern(SIZE), path=path) as layer:
        start = path.read_bytes()
        with monkeypatch.context() as watching:
            disk.watch(watching)
            client = Client(layer, disk, base)
            await work(client, rng)
    crashed = tmp_path / "crashed.cow"
    for until in range(len(disk.events) + 1):
        crashed.write_bytes(disk.image(start, until, rng))
        async with opened(pattern(SIZE), path=crashed, read_only=True) as layer:
            client.check(await contents(layer), until)
