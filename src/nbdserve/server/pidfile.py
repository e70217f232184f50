"""The pid file: written whole once the server listens, removed if it is still ours."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nbdserve.errors import DeviceError

__all__ = ["pid_file"]


@contextlib.contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """Keep this process's id in `path` for the time of the block; None keeps none.

    A file that is there already is replaced, as nbdkit does: it cannot tell a live server from a
    dead one whose number was used again, the listening socket can.

    Raises:
        DeviceError: it cannot be written.
    """
    if path is None:
        yield
        return
    fresh = path.parent / f".{path.name}.{os.getpid()}"  # with_name would refuse "" and "/"
    text = f"{os.getpid()}\n"
    try:
        fresh.write_text(text)
        fresh.rename(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise DeviceError(
            f"cannot write the pid file {path}: {exc.strerror}; check its folder", exc.errno
        ) from exc
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                path.unlink()
