"""Reusable buffers: a batch of hot reads is filled into one slab and sent from it.

Making a fresh buffer for each read costs a page fault for every 4 KiB of it, more than the read
itself. A slab is taken, filled, sent, and given back once the kernel has taken all of it. The
payload of a large write is received into one, which is given back when it was written.
"""

from typing import Final

__all__ = ["SLAB_SIZE", "give_back", "give_payload_back", "payload_memory", "take"]

SLAB_SIZE: Final = 1 << 20
"""Bytes: a batch of 64 reads of 4 KiB fits four times, a 1 MiB read just fits."""

_KEPT = 8  # idle slabs kept for the process; more would only sit in memory
_free: list[memoryview] = []


def take() -> memoryview:
    """Take a slab of `SLAB_SIZE` bytes with unspecified contents."""
    # list.pop and append are atomic, so event loops in several threads may share the list
    try:
        return _free.pop()
    except IndexError:
        return memoryview(bytearray(SLAB_SIZE))


def give_back(slab: memoryview) -> None:
    """Give a slab back; nothing may refer to it any more."""
    if len(_free) < _KEPT:
        _free.append(slab)


def payload_memory(length: int) -> memoryview:
    """Make memory for a payload: a slab, if it fills at least half of one."""
    if SLAB_SIZE // 2 <= length <= SLAB_SIZE:
        return take()[:length]
    return memoryview(bytearray(length))


def give_payload_back(payload: memoryview) -> None:
    """Give back the slab, if it is one, of a payload that nothing refers to any more."""
    if isinstance(payload.obj, bytearray) and len(payload.obj) == SLAB_SIZE:
        give_back(memoryview(payload.obj))
