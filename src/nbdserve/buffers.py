"""Buffers for data that is kept: memory that returns to the system when the last user lets go.

A heap allocation of some MiB may stay with the process when it is freed, and every byte of it
counts from the start. An anonymous mapping is returned at once, and its pages count only once they
are written: zeroes that are never stored cost no memory.
"""

import mmap
from typing import Final

__all__ = ["MAPPED", "fill_zeroes", "zeroed_buffer"]

MAPPED: Final = 1 << 20
"""Bytes from which a buffer is a mapping: one for each 4 KiB would exhaust the kernel's table."""

_ZEROES: Final = memoryview(bytes(1 << 20))


def zeroed_buffer(size: int) -> memoryview:
    """Make a writable buffer of `size` zero bytes; it lives as long as views of it do."""
    if size < MAPPED:
        return memoryview(bytearray(size))
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def fill_zeroes(view: memoryview) -> None:
    """Overwrite all of `view` (format B, contiguous, writable) with zeroes."""
    length = len(view)
    for at in range(0, length, len(_ZEROES)):
        end = min(at + len(_ZEROES), length)
        view[at:end] = _ZEROES[: end - at]
