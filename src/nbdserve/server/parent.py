"""Ending with the parent process, as `--exit-with-parent` asks. Source: prctl(2)."""

import ctypes
import os
import signal

from nbdserve.errors import DeviceError

__all__ = ["exit_with_parent"]

_PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """Have SIGTERM sent to this process when its parent ends.

    Raises:
        DeviceError: the kernel refuses, or the parent is gone already.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise DeviceError(f"--exit-with-parent: {os.strerror(number)}", number)
    if os.getppid() != parent:  # it ended between the two calls: no signal will come
        raise DeviceError("--exit-with-parent: the parent has ended already")
