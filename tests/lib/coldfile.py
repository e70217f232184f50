"""Reads that have to wait for the disk, and whether the kernel takes them by io_uring here."""

import asyncio
import errno
import functools

from nbdserve.iouring import Ring

__all__ = ["can_ring", "one", "outcome"]


@functools.cache
def can_ring():
    """Tell whether io_uring is there, and permitted: x86-64, kernel.io_uring_disabled, seccomp."""
    try:
        Ring(8).close()
    except OSError as exc:
        if exc.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            return False
        raise
    return True


async def outcome(reads, offset, view):
    done = asyncio.get_running_loop().create_future()
    reads.add(offset, view, done.set_result)
    assert not done.done(), "never before `add` returns"
    return await done


async def one(reads, at):
    view = memoryview(bytearray(4096))
    await reads(at, view)
    return bytes(view)
