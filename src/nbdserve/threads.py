"""The two thread pools of the process, by what their threads wait for.

Blocking work never runs on the event loop, and never in the loop's default executor, where a
name look-up would queue behind it. `io_pool` threads sleep in the kernel, so there are many;
`cpu_pool` threads decode (lzma releases the GIL), so there is one a core.
"""

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["cpu_pool", "io_pool", "run_cpu", "run_io"]

T = TypeVar("T")

# As many as one connection has requests in flight (qemu: 16) on a few disks at once.
_IO_THREADS = 32


@functools.cache
def io_pool() -> Executor:
    """Return the pool for calls that block in the kernel (disk reads, fdatasync)."""
    return ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="nbdserve-io")


@functools.cache
def cpu_pool() -> Executor:
    """Return the pool for calls that burn a core outside the GIL (decompression, hashing)."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="nbdserve-cpu")


async def run_io(call: Callable[..., T], *args: object, **options: object) -> T:
    """Run a blocking call in `io_pool`; cancelling abandons it, the thread finishes."""
    return await asyncio.get_running_loop().run_in_executor(
        io_pool(), functools.partial(call, *args, **options)
    )


async def run_cpu(call: Callable[..., T], *args: object, **options: object) -> T:
    """Run a computing call in `cpu_pool`; cancelling abandons it, the thread finishes."""
    return await asyncio.get_running_loop().run_in_executor(
        cpu_pool(), functools.partial(call, *args, **options)
    )
