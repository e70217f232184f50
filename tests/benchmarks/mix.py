"""What one client's work does to another: large reads beside small ones, cold beside hot.

Fairness: 4 KiB reads at depth 1 while another client keeps 32 reads of 256 KiB under way. Cold: the
image leaves the page cache, then 4 KiB reads at depth 64 all over it, while another client reads
4 KiB at depth 1 from the first MiBs, which are cached. Rounds are interleaved; medians are shown.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from local import make_image
from servers import CONTENDERS, OURS, Running, serving

_HOT = 16 << 20


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--size", type=int, default=1 << 30)
    parser.add_argument("--servers", default=f"{OURS},nbdkit,qemu-nbd,nbd-server",
                        help=f"of {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--dir", help="where the image is made (default: $TMPDIR)")
    arguments = parser.parse_args()
    names = arguments.servers.split(",")
    fair: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    cold: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder, ExitStack() as stack:
        image = make_image(Path(folder), "full", arguments.size)
        running = {
            name: stack.enter_context(serving(name, image, Path(folder), "unix")) for name in names
        }
        for _ in range(arguments.rounds):
            for name, server in running.items():
                fair[name].append(_fair(server, arguments))
                cold[name].append(_cold(server, image, arguments))
    _show("4 KiB at depth 1 beside 32 x 256 KiB", fair,
          "p50 us | p99 us | its reads/s | the other's MiB/s")  # fmt: skip
    _show("cold 4 KiB at depth 64, hot 4 KiB at depth 1 beside it", cold,
          "cold reads/s | hot p50 us | hot p99 us")  # fmt: skip


def _fio(server: Running, seconds: float, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["fio", "--name=mix", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randread",
         "--time_based", f"--runtime={round(seconds * 1000)}ms", "--randrepeat=0",
         "--norandommap", "--output-format=json", *options],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _read(fio: subprocess.Popen[str]) -> tuple[float, float, float, float]:
    """Return reads a second, MiB a second, and median and 99th percentile in us."""
    told, _ = fio.communicate()
    job = json.loads(told[told.index("{") :])["jobs"][0]["read"]
    percentile = job["clat_ns"]["percentile"]
    p50, p99 = (percentile[key] / 1000 for key in ("50.000000", "99.000000"))
    return job["iops"], job["bw"] / 1024, p50, p99


def _fair(server: Running, arguments: argparse.Namespace) -> tuple[float, ...]:
    size = f"--size={arguments.size}"
    with _fio(server, arguments.seconds + 1, "--bs=256k", "--iodepth=32", size) as large:
        with _fio(server, arguments.seconds, "--bs=4k", "--iodepth=1", size) as small:
            rate, _, p50, p99 = _read(small)
        return p50, p99, rate, _read(large)[1]


def _cold(server: Running, image: Path, arguments: argparse.Namespace) -> tuple[float, ...]:
    fd = os.open(image, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for at in range(0, _HOT, 1 << 20):
        os.pread(fd, 1 << 20, at)
    os.close(fd)
    cold_options = ("--bs=4k", "--iodepth=64", f"--offset={_HOT * 2}",
                    f"--size={arguments.size - 2 * _HOT}")  # fmt: skip
    with (
        _fio(server, arguments.seconds, *cold_options) as cold,
        _fio(server, arguments.seconds, "--bs=4k", "--iodepth=1", f"--size={_HOT}") as hot,
    ):
        _, _, p50, p99 = _read(hot)
        return _read(cold)[0], p50, p99


def _show(title: str, found: dict[str, list[tuple[float, ...]]], columns: str) -> None:
    print(f"\n| {title} | {columns} |\n|---|{'---|' * (columns.count('|') + 1)}")
    for name, rounds in found.items():
        cells = [f"{statistics.median(values):,.0f}" for values in zip(*rounds, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
