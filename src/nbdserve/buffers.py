"""Buffers for data that is kept: memory that returns to the system when the last user lets go.

A heap allocation of some MiB may stay with the process when it is freed, and every byte of it
counts from the start. An anonymous mapping is returned at once, and its pages count only once they
are written: zeroes that are never stored cost no memory.
"""

import mmap
from typing import Final

__all__ = ["MAPPED", "fill_zeroes", "is_zero", "zeroed_buffer"]

MAPPED: Final = 1 << 20
"""Bytes from which a buffer is a mapping: one for each 4 KiB would exhaust the kernel's table."""

_ZERO_BYTES: Final = bytes(1 << 20)
_ZEROES: Final = memoryview(_ZERO_BYTES)


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


def is_zero(view: memoryview) -> bool:
    """Tell whether all of `view` is zero; one that is not is mostly found out at its start."""
    # startswith is a memcmp without a copy; comparing memoryviews goes byte by byte
    step = len(_ZERO_BYTES)
    return all(_ZERO_BYTES.startswith(view[at : at + step]) for at in range(0, len(view), step))
