"""What is measured, each as a function of a running server to operations (or MiB) a second."""

import json
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from servers import Running

__all__ = ["WORKLOADS", "Effort", "Workload"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one measurement takes, and on how much data."""

    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table.

    Attributes:
        name: what it is called.
        measure: does the work once; returns its rate.
        image: which image it needs, `full` or `sparse`.
        unit: of the rate.
        target: the ratio to the best of the C servers that the project aims at, if any.
    """

    name: str
    measure: Callable[[Running, Effort], float]
    image: str = "full"
    unit: str = "op/s"
    target: float | None = None


def _fio(rw: str, block: str, depth: int, *more: str) -> Callable[[Running, Effort], float]:
    def measure(server: Running, effort: Effort) -> float:
        done = subprocess.run(
            ["fio", "--name=bench", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={rw}",
             f"--bs={block}", f"--iodepth={depth}", f"--size={effort.size}", "--group_reporting",
             "--time_based", f"--runtime={round(effort.seconds * 1000)}ms", "--randrepeat=0",
             "--norandommap", "--output-format=json", *more],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        return float(job["read"]["iops"]) + float(job["write"]["iops"])

    return measure


def _copy(server: Running, effort: Effort) -> float:
    begin = time.perf_counter()
    subprocess.run(["nbdcopy", server.uri, "null:"], check=True)
    return (effort.size >> 20) / (time.perf_counter() - begin)


def _qemu_bench(*options: str) -> Callable[[Running, Effort], float]:
    def measure(server: Running, effort: Effort) -> float:
        count = int(effort.seconds * 20_000)
        done = subprocess.run(
            ["qemu-img", "bench", "-c", str(count), "-d", "64", "-s", "4096", "-f", "raw",
             *options, server.uri],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return count / float(done.stdout.split("completed in ")[1].split()[0])

    return measure


def _connect(server: Running, effort: Effort) -> float:
    """Connect, choose the export by GO, and leave by DISC, one client after the other."""
    name = server.export.encode()
    option = struct.pack(">IQIIIH", 3, 0x49484156454F5054, 7, 6 + len(name), len(name), 0)
    option = option[:-2] + name + option[-2:]  # the name stands before the number of infos
    goodbye = struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < effort.seconds:
        with server.place.connect() as sock, sock.makefile("rb") as stream:
            stream.read(18)
            sock.sendall(option)
            kind = None
            while kind != 1:  # ACK
                _, _, kind, length = struct.unpack(">QIII", stream.read(20))
                stream.read(length)
            sock.sendall(goodbye)
        count += 1
    return count / (time.perf_counter() - begin)


WORKLOADS = [
    Workload("random read 4 KiB, depth 1", _fio("randread", "4k", 1), target=1.3),
    Workload("random read 4 KiB, depth 16", _fio("randread", "4k", 16)),
    Workload("random read 4 KiB, depth 64", _fio("randread", "4k", 64), target=2.0),
    Workload("random read 4 KiB, 4 connections x 16",
             _fio("randread", "4k", 16, "--numjobs=4"), target=1.0),
    Workload("random read 4 KiB, 4 connections x 64", _fio("randread", "4k", 64, "--numjobs=4")),
    Workload("random read 64 KiB, depth 16", _fio("randread", "64k", 16), target=1.3),
    Workload("sequential read 1 MiB, depth 8", _fio("read", "1m", 8), target=1.5),
    Workload("random write 4 KiB, depth 1", _fio("randwrite", "4k", 1)),
    Workload("random write 4 KiB, depth 64", _fio("randwrite", "4k", 64), target=1.3),
    Workload("random write 4 KiB, depth 1, flush every 16",
             _fio("randwrite", "4k", 1, "--fsync=16")),
    Workload("random write 4 KiB, depth 64, flush every 16",
             _fio("randwrite", "4k", 64, "--fsync=16"), target=1.5),
    Workload("mixed 70/30 4 KiB, depth 64", _fio("randrw", "4k", 64, "--rwmixread=70")),
    Workload("sequential write 1 MiB, depth 8", _fio("write", "1m", 8), target=1.0),
    Workload("nbdcopy, full image", _copy, unit="MiB/s"),
    Workload("nbdcopy, sparse image", _copy, image="sparse", unit="MiB/s"),
    Workload("qemu-img bench, 4 KiB reads, depth 64", _qemu_bench()),
    Workload("qemu-img bench, 4 KiB writes, depth 64", _qemu_bench("-w")),
    Workload("qemu-img bench, 4 KiB writes with FUA, depth 64",
             _qemu_bench("-w", "-t", "writethrough")),
    Workload("connect, GO, disconnect", _connect),
]  # fmt: skip
