"""What the limits are made of, in the same run: the link's rate and delay, and xz's speed."""

import os
import re
import subprocess
import time
from dataclasses import dataclass, field

from remote.images import Image
from remote.limits import Machine
from remote.processes import finished, running
from remote.trial import Lab

__all__ = ["Gauge"]

_SLOW_START = 16 << 20  # bytes until the link is full
_MEASURED = 48 << 20  # bytes after them


@dataclass(slots=True)
class Gauge:
    """Measures each thing once a round, and keeps the best: a limit is of a machine at rest.

    Attributes:
        lab: where.
        rates: of links, bytes a second.
        trips: round trips of links, seconds.
        decodes: `xz -dc` on one core, seconds, by image.
    """

    lab: Lab
    rates: dict[str, float] = field(default_factory=dict)
    trips: dict[str, float] = field(default_factory=dict)
    decodes: dict[str, float] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    def new_round(self) -> None:
        """Measure everything again when it is next asked for."""
        self._done.clear()

    def machine(self, link: str, image: Image) -> Machine:
        """Return what the limits of a link and an image are made of."""
        if link not in self._done:
            rate, trip = self._link(link, image)
            self.rates[link] = max(rate, self.rates.get(link, 0.0))
            self.trips[link] = min(trip, self.trips.get(link, trip))
            if link == "far":
                self.lab.trip = self.trips[link]
        if image.name not in self._done:
            took = self._decode(image)
            self.decodes[image.name] = min(took, self.decodes.get(image.name, took))
        self._done |= {link, image.name}
        return Machine(
            rate=self.rates[link], rtt=self.trips[link], decode=self.decodes[image.name],
            cores=len(os.sched_getaffinity(0)),
        )  # fmt: skip

    def _link(self, link: str, image: Image) -> tuple[float, float]:
        """Let curl fetch the disk itself, for it is large; the rate is that of a full link."""
        raw = Image("raw", image.raw, image.raw, None)
        place = self.lab.place()
        with self.lab.web(link, raw) as server:
            url = server.url(raw.path)
            enter = self.lab.client(link)
            argv = [*enter, "curl", "-sf", "-r", f"0-{_SLOW_START + _MEASURED - 1}", url]
            with running(argv, log=place / "log", stdout=subprocess.PIPE) as curl:
                assert curl.stdout is not None
                before = len(curl.stdout.read(_SLOW_START))
                began = time.monotonic()
                after = len(curl.stdout.read())
                rate = after / (time.monotonic() - began)
            if before + after != _SLOW_START + _MEASURED:
                raise RuntimeError(f"curl got {before + after} bytes over the link {link}")
            asked = [*enter, "curl", "-sf", "-r", "0-0", "-o", "/dev/null", "-w",
                     "connected=%{time_connect}\n", url]  # fmt: skip
            finished(asked, log=place / "trip", within=60)
            found = re.search(r"connected=([\d.]+)", (place / "trip").read_text())
        return rate, float(found[1]) if found else 0.0

    def _decode(self, image: Image) -> float:
        if image.layout is None:
            return 0.0
        began = time.monotonic()
        finished(["sh", "-c", f"xz -dc '{image.path}' >/dev/null"], log=self.lab.place() / "log",
                 within=self.lab.within)  # fmt: skip
        return time.monotonic() - began
