"""The remote job, measured: nbdserve beside nbdkit, curl, xz and qemu, in one run and one table.

Images are made once and kept in a folder; nginx serves them over loopback and over a far link (two
network namespaces joined by a pipe of some delay and rate). Rounds are interleaved: each row is
measured once, then all again, for machines drift and only ratios within a run hold. Ctrl-C prints
what was found so far and leaves nothing behind.

Columns: time in seconds, the median; /limit: by what link and cores allow at least (for a boot, by
the image as a local file); /nbdkit and /tuned: by nbdkit as it is typed, and at its best tuning;
before: by an earlier run; requests to the web server and MB of their bodies; a block: requests by
the blocks that the work needs; /need: bytes by those of these blocks; CPU s, RSS MiB: of the
server; trips: round trips from the first packet to the first answer.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from remote import trace
from remote.contenders import CONTENDERS
from remote.farlink import FarLink, farlink, own_name
from remote.gauge import Gauge
from remote.images import NAMES, Image, prepare
from remote.limits import limit
from remote.plan import LINKS, LOCAL, Row, SelectionError, plan
from remote.report import Report
from remote.trial import Lab, NotTriedError
from remote.turns import Turns
from remote.works import WORKS

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNITS = {"K": 10, "M": 20, "G": 30}


def main() -> int:
    """Run; return the exit status."""
    for number in ENDINGS:
        signal.signal(number, end)
    arguments = parse(sys.argv[1:])
    try:
        rows = plan(filter(None, arguments.only.split(",")))
    except SelectionError as exc:
        print(f"bench-remote: {exc}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("bench-remote: network namespaces need root; run it as root", file=sys.stderr)
        return 2
    report = Report.of(rows, arguments.against)
    try:
        run(arguments, report)
    finally:
        if any(figures.samples for figures in report.found.values()):
            print("\n".join(report.lines()))
            kept = (
                arguments.json or arguments.images / f"result-{time.strftime('%Y%m%d-%H%M%S')}.json"
            )
            report.write(kept)
            print(f"\n{kept}", file=sys.stderr)
    return int(report.failed)


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench-remote", description=__doc__, epilog=f"""names for --only:
  links       {', '.join(LINKS)}
  images      {', '.join(NAMES)} (raw: not compressed; on the far link only where it is named)
  works       {', '.join(WORKS)}
  contenders  {', '.join(CONTENDERS)}""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--only", default="", help="names, with commas: far,copy,16M")
    add("--rounds", type=int, default=1, help="times that each row is measured (default 1)")
    add("--size", type=size, default=3 << 30, help="of the disk (default 3G; 512M for a try)")
    add("--images", type=Path, default=Path(".benchmarks/remote"), help="where images are kept")
    add("--json", type=Path, help="where figures go (default: a new file beside the images)")
    add("--against", type=Path, help="the JSON file of an earlier run, for a column")
    add("--rtt", type=float, default=40, help="of the far link, milliseconds (default 40)")
    add("--mbit", type=float, default=100, help="of the far link, each way (default 100)")
    add("--timeout", type=float, default=900, help="seconds that a work may take (default 900)")
    add("--accel", default="tcg", help="how qemu runs guests (default tcg)")
    add("--lock", type=Path, help="share the machine by this file's lock: in turns of two minutes")
    return parser.parse_args(words)


def size(written: str) -> int:
    """Read a size with K, M or G."""
    unit = UNITS.get(written[-1:].upper(), 0)
    return int(written[:-1] if unit else written) << unit


def end(number: int, _: object) -> NoReturn:
    """Leave by way of every `finally`, undisturbed by a second signal."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    sys.exit(128 + number)


def run(arguments: argparse.Namespace, report: Report) -> None:
    """Measure every row, round by round."""
    rows = list(report.found)
    images = prepare(
        arguments.images.resolve(), sorted({row.image for row in rows}), arguments.size
    )
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="bench-remote-")
        link = FarLink(own_name("bench"), rtt=arguments.rtt, mbit=arguments.mbit)
        if any(row.link == "far" for row in rows):
            stack.enter_context(farlink(link))
        lab = Lab(
            images=images, link=link, reads=trace.fit(trace.load(), arguments.size),
            scratch=Path(stack.enter_context(folder)), within=arguments.timeout,
            accel=arguments.accel,
        )  # fmt: skip
        gauge = Gauge(lab)
        turns = Turns(arguments.lock)
        stack.callback(turns.leave)
        report.facts |= {"images": told(images), "rtt": gauge.trips, "rate": gauge.rates,
                         "decode": gauge.decodes}  # fmt: skip
        for _ in range(arguments.rounds):
            gauge.new_round()
            for row in rows:
                turns.take()
                measure(row, lab, gauge, report)
                turns.offer()


def measure(row: Row, lab: Lab, gauge: Gauge, report: Report) -> None:
    """Measure a row once, unless it failed before."""
    figures = report.found[row]
    if figures.failure:
        return
    try:
        if row != LOCAL:  # before the row, whose answers are told in round trips
            gauge.machine(row.link, lab.images[row.image])
        sample = lab.run(row)
        if row != LOCAL:
            figures.limit = least(row, lab, gauge, report)
        report.add(row, sample)
    except NotTriedError as exc:
        report.skip(row, f"not tried: {exc}")
    except RuntimeError as exc:
        report.fail(row, str(exc))


def least(row: Row, lab: Lab, gauge: Gauge, report: Report) -> float:
    """Return the limit of a row, seconds; 0 if it is not known."""
    if row.work == LOCAL.work or WORKS[row.work].again:
        return report.found[LOCAL].seconds
    image = lab.images[row.image]
    machine = gauge.machine(row.link, image)
    if image.layout is None:
        return image.file_size / machine.rate if row.link == "far" else 0.0
    return limit(row.work, machine, image.layout, lab.needs(row))


def told(images: dict[str, Image]) -> dict[str, dict[str, int]]:
    """Tell of the images what the file of figures should say."""
    return {
        name: {"file": image.file_size, "blocks": len(image.layout.blocks) if image.layout else 0}
        for name, image in images.items()
    }


if __name__ == "__main__":
    sys.exit(main())
