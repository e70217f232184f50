"""From exceptions to wire errors."""

import errno

import pytest

from nbdserve.errors import (
    CorruptDataError,
    DeviceError,
    NoSpaceError,
    NotSupportedError,
    ReadOnlyError,
)
from nbdserve.protocol.constants import WireError
from nbdserve.protocol.errno import wire_failure


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (DeviceError("x"), WireError.EIO),
        (CorruptDataError("x"), WireError.EIO),
        (ReadOnlyError("x"), WireError.EPERM),
        (NoSpaceError("x"), WireError.ENOSPC),
        (OSError(errno.EROFS, "x"), WireError.EPERM),
        (OSError(errno.EACCES, "x"), WireError.EPERM),
        (OSError(errno.EDQUOT, "x"), WireError.ENOSPC),
        (OSError(errno.EFBIG, "x"), WireError.ENOSPC),
        (OSError(errno.EINVAL, "x"), WireError.EINVAL),
        (OSError(errno.ENXIO, "x"), WireError.EIO),
        (OSError(errno.ESHUTDOWN, "x"), WireError.EIO),
        (OSError(errno.EOVERFLOW, "x"), WireError.EIO),
        (OSError("no number"), WireError.EIO),
        (MemoryError(), WireError.ENOMEM),
        (RuntimeError("bug"), WireError.EIO),
    ],
)
def test_each_exception_has_its_wire_error(exc, error):
    """Mistake (7): EINVAL for everything."""
    failure = wire_failure(exc)
    assert failure.error is error
    assert failure.text


def test_enotsup_answers_only_fast_zero():
    exc = NotSupportedError("slow")
    assert wire_failure(exc, fast_zero=True).error is WireError.ENOTSUP
    assert wire_failure(exc).error is WireError.EINVAL


def test_the_text_of_a_device_error_travels_unchanged():
    assert wire_failure(DeviceError("http: gone")).text == "http: gone"
