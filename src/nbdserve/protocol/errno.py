"""From an exception to the error on the wire: the one place that knows both.

The wire has eight errors; the rest of the platform's become EIO, with the text in the error chunk.
Source: NBD proto.md, "Error values".
"""

import errno
from typing import NamedTuple

from nbdserve.protocol.constants import WireError

__all__ = ["WireFailure", "wire_failure"]

_WIRE = {
    errno.EPERM: WireError.EPERM,
    errno.EACCES: WireError.EPERM,
    errno.EROFS: WireError.EPERM,
    errno.ENOMEM: WireError.ENOMEM,
    errno.EINVAL: WireError.EINVAL,
    errno.ENOSPC: WireError.ENOSPC,
    errno.EDQUOT: WireError.ENOSPC,
    errno.EFBIG: WireError.ENOSPC,
}


class WireFailure(NamedTuple):
    """An error as the client gets it."""

    error: WireError
    text: str


def wire_failure(exc: BaseException, *, fast_zero: bool = False) -> WireFailure:
    """Translate what a device raised.

    Args:
        exc: the exception.
        fast_zero: the request was a WRITE_ZEROES with FAST_ZERO, the only one ENOTSUP may answer.
    """
    if isinstance(exc, MemoryError):
        return WireFailure(WireError.ENOMEM, "out of memory")
    if not isinstance(exc, OSError):
        return WireFailure(WireError.EIO, f"internal error: {type(exc).__name__}: {exc}")
    number = exc.errno or errno.EIO
    text = str(exc.strerror or exc)
    if number in (errno.ENOTSUP, errno.EOPNOTSUPP):
        return WireFailure(WireError.ENOTSUP if fast_zero else WireError.EINVAL, text)
    return WireFailure(_WIRE.get(number, WireError.EIO), text)
