"""nbdserve against the C servers on the same file, in one run, as one table of ratios.

Rounds are interleaved (each workload goes once over all servers, then again), because machines
drift: the ratio of medians is what counts, and beside it the ratio of work done a CPU second of the
server, which a busy machine does not change. A quick look at one row while working:

    make bench BENCH_ARGS='--only "depth 64" --transports unix --rounds 3 --seconds 1'
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from servers import CONTENDERS, OURS, Running, serving
from workloads import WORKLOADS, Effort, Workload

_PEERS = ("nbdkit", "qemu-nbd", "nbd-server")


def main() -> None:
    """Measure and print one table for each transport."""
    arguments = _arguments()
    names = arguments.servers.split(",")
    effort = Effort(arguments.seconds, arguments.size)
    chosen = [w for w in WORKLOADS if any(part in w.name for part in arguments.only or [""])]
    if arguments.list or not chosen:
        print("\n".join(workload.name for workload in WORKLOADS))
        return
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder, ExitStack() as stack:
        scratch = Path(folder)
        images = {
            kind: make_image(scratch, kind, effort.size) for kind in {w.image for w in chosen}
        }
        for transport in arguments.transports.split(","):
            print(_head(transport, names), flush=True)
            running = {
                (name, kind): stack.enter_context(serving(name, image, scratch, transport))
                for name in names
                for kind, image in images.items()
            }
            for workload in chosen:
                rates, cpu = _measure(workload, running, names, effort, arguments.rounds)
                print(_row(workload, rates, cpu), flush=True)
                results.append(
                    {"transport": transport, "work": workload.name, "rates": rates, "cpu": cpu}
                )
            stack.close()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="each measurement of a round")
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes of the image")
    parser.add_argument("--only", action="append", help="workloads whose names contain this")
    parser.add_argument("--servers", default=",".join((OURS, *_PEERS)),
                        help=f"of {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--transports", default="unix,tcp")
    parser.add_argument("--dir", help="where the image is made (default: $TMPDIR)")
    parser.add_argument("--json", help="keep every figure in this file")
    parser.add_argument("--list", action="store_true", help="list the workloads")
    return parser.parse_args()


def make_image(scratch: Path, kind: str, size: int) -> Path:
    """Make an image; of a sparse one each sixteenth MiB is data."""
    image = scratch / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, (16 if kind == "sparse" else 1) << 20):
            file.seek(at)
            file.write(os.urandom(1 << 20))
    subprocess.run(["sync", str(image)], check=True)
    return image


def _measure(
    workload: Workload,
    running: dict[tuple[str, str], Running],
    names: list[str],
    effort: Effort,
    rounds: int,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return rates, and CPU seconds a measurement, of each server."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            server = running[name, workload.image]
            before = server.cpu_seconds()
            rates[name].append(workload.measure(server, effort))
            cpu[name].append(server.cpu_seconds() - before)
    return rates, cpu


def _head(transport: str, names: list[str]) -> str:
    cells = " | ".join(names)
    return f"\n| {transport} (CPU s) | {cells} | ratio | per CPU s |\n|{'---|' * (len(names) + 3)}"


def _row(
    workload: Workload, rates: dict[str, list[float]], cpu: dict[str, list[float]]
) -> str:  # fmt: skip
    """Format one workload as a row of a Markdown table."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    peers = [value for name, value in medians.items() if name in _PEERS]
    ratio = f"{medians[OURS] / max(peers):.2f}" if peers and OURS in medians else ""
    worth = {
        name: value / max(statistics.median(cpu[name]), 0.01) for name, value in medians.items()
    }
    most = [value for name, value in worth.items() if name in _PEERS]
    per_cpu = f"{worth[OURS] / max(most):.2f}" if most and OURS in worth else ""
    target = f" (≥ {workload.target:.1f})" if workload.target else ""
    cells = [f"{medians[name]:,.0f} ({statistics.median(cpu[name]):.2f})" for name in medians]
    return (
        f"| {workload.name}, {workload.unit} | {' | '.join(cells)} | {ratio}{target} | {per_cpu} |"
    )


if __name__ == "__main__":
    main()
