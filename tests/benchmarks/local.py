"""fio's nbd engine against nbdserve and the C servers on the same file, in one run.

Rounds are interleaved (each workload goes once over all servers, then again), because these
machines drift: the ratio of medians is what counts. `python tests/benchmarks/local.py --help`.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from servers import CONTENDERS, serving


@dataclass(frozen=True, slots=True)
class Workload:
    """One fio job."""

    name: str
    rw: str
    block: str
    depth: int
    jobs: int = 1
    more: tuple[str, ...] = ()


WORKLOADS = [
    Workload("random read 4 KiB, depth 1", "randread", "4k", 1),
    Workload("random read 4 KiB, depth 16", "randread", "4k", 16),
    Workload("random read 4 KiB, depth 64", "randread", "4k", 64),
    Workload("random read 4 KiB, 4 connections x 16", "randread", "4k", 16, 4),
    Workload("random read 64 KiB, depth 16", "randread", "64k", 16),
    Workload("sequential read 1 MiB, depth 8", "read", "1m", 8),
    Workload("random write 4 KiB, depth 1", "randwrite", "4k", 1),
    Workload("random write 4 KiB, depth 64", "randwrite", "4k", 64),
    Workload("random write 4 KiB, depth 64, flush every 16", "randwrite", "4k", 64, 1,
             ("--fsync=16",)),
    Workload("mixed 70/30 4 KiB, depth 64", "randrw", "4k", 64, 1, ("--rwmixread=70",)),
    Workload("sequential write 1 MiB, depth 8", "write", "1m", 8),
]  # fmt: skip


def measure(workload: Workload, uri: str, size: int, seconds: float) -> float:
    """Run fio once; return its operations a second."""
    done = subprocess.run(
        ["fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", f"--rw={workload.rw}",
         f"--bs={workload.block}", f"--iodepth={workload.depth}", f"--numjobs={workload.jobs}",
         f"--size={size}", "--group_reporting", "--time_based", f"--runtime={seconds}",
         "--randrepeat=0", "--norandommap", "--output-format=json", *workload.more],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return float(job["read"]["iops"]) + float(job["write"]["iops"])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used (proc(5), stat fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    """Run and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--size", type=int, default=1 << 30)
    parser.add_argument("--only", default="", help="run workloads whose name contains this")
    parser.add_argument("--servers", default=",".join(CONTENDERS))
    arguments = parser.parse_args()
    names = arguments.servers.split(",")
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        image = scratch / "disk.img"
        subprocess.run(
            ["dd", "if=/dev/urandom", f"of={image}", "bs=1M", f"count={arguments.size >> 20}",
             "status=none"], check=True,
        )  # fmt: skip
        running = {
            name: stack.enter_context(serving(CONTENDERS[name], image, scratch)) for name in names
        }
        for workload in WORKLOADS:
            if arguments.only not in workload.name:
                continue
            figures: dict[str, list[float]] = {name: [] for name in names}
            cpu: dict[str, float] = {}
            for _ in range(arguments.rounds):
                for name, (uri, pid) in running.items():
                    before = cpu_seconds(pid)
                    rate = measure(workload, uri, arguments.size, arguments.seconds)
                    figures[name].append(rate)
                    spent = cpu_seconds(pid) - before
                    cpu[name] = 1e6 * spent / max(1, rate * arguments.seconds)
            rows.append((workload, figures, cpu))
            print(row(workload, figures, cpu), flush=True)


def row(workload: Workload, figures: dict[str, list[float]], cpu: dict[str, float]) -> str:
    """Format one workload as a row of a Markdown table."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    others = [value for name, value in medians.items() if name != "nbdserve"]
    ratio = medians["nbdserve"] / max(others) if others and "nbdserve" in medians else 0
    cells = [f"{medians[name]:,.0f} ({cpu[name]:.0f} us)" for name in medians]
    return f"| {workload.name} | {' | '.join(cells)} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
