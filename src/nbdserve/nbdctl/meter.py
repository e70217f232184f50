"""A progress bar on a terminal; elsewhere, a plain line for each tenth.

The text is made by a pure function out of samples (moment, bytes done); the rate is that of the
last seconds, so that holes, which cost nothing, do not promise too much for what is left.
"""

import sys
import time
from collections import deque
from typing import Final, TextIO

from nbdserve.inspection import short_size

__all__ = ["Meter", "progress_text"]

_REDRAW: Final = 0.1  # seconds between two drawings
_SAMPLES: Final = 100  # at that pace, the rate is that of the last ten seconds
_BAR: Final = 24

Sample = tuple[float, int]


def progress_text(samples: "deque[Sample]", total: int, *, bar: bool) -> str:
    """Say how far it is: percent, bytes, rate and the time that is left.

    Args:
        samples: moments in seconds and bytes done by then, at least one, in order.
        total: bytes in all.
        bar: draw a bar too.
    """
    (first_moment, first_done), (moment, done) = samples[0], samples[-1]
    part = done / total if total else 1.0
    drawn = "#" * int(part * _BAR)
    text = f"[{drawn:<{_BAR}}] " if bar else ""
    text += f"{int(part * 100):3d}%  {short_size(done)} of {short_size(total)}"
    seconds = moment - first_moment
    if seconds <= 0 or done <= first_done:
        return text
    rate = (done - first_done) / seconds
    left = round((total - done) / rate)
    return f"{text}  {short_size(int(rate))}/s  ETA {left // 60}:{left % 60:02d}"


class Meter:
    """Shows the progress of one work on stderr.

    Args:
        total: bytes in all.
        stream: where it is shown.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._samples: deque[Sample] = deque([(time.monotonic(), 0)], maxlen=_SAMPLES)
        self._tenth = 0
        self._width = 0

    def show(self, done: int) -> None:
        """Take note of how many bytes are done, and show it if it is time to."""
        now = time.monotonic()
        tenth = done * 10 // self._total if self._total else 10
        if self._terminal:
            if now - self._samples[-1][0] >= _REDRAW or done == self._total:
                self._samples.append((now, done))
                self._draw(progress_text(self._samples, self._total, bar=True))
        elif tenth > self._tenth:
            self._tenth = tenth
            self._samples.append((now, done))
            self._write(progress_text(self._samples, self._total, bar=False) + "\n")

    def close(self) -> None:
        """Leave the terminal with a line of its own for what comes next."""
        if self._width:
            self._draw("")
            self._write("\r")

    def _draw(self, text: str) -> None:
        blank = " " * (self._width - len(text))
        self._width = len(text)
        self._write(f"\r{text}{blank}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
