"""`--run COMMAND`: a command that runs while the server does, and ends it.

The command is the shell's; what it needs to know is in its environment, so that `$uri` is expanded
where it stands and nothing has to be quoted twice. Its meaning is nbdkit's (nbdkit-captive(1)).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

__all__ = ["captive_environment", "run_captive"]


def captive_environment(
    *, uri: str, unix_path: Path | None, port: int | None, export: str
) -> Mapping[str, str]:
    """Make the variables a captive command sees.

    Returns:
        uri: the export's; nbd: the same, of a Unix socket in a form that qemu takes everywhere and
        that cannot ask for TLS; unixsocket and port: empty where there is none; exportname.
    """
    nbd = uri
    if unix_path is not None:
        nbd = f"nbd:unix:{unix_path}" + (f":exportname={export}" if export else "")
    return {
        "uri": uri,
        "nbd": nbd,
        "unixsocket": str(unix_path or ""),
        "port": str(port or ""),
        "exportname": export,
    }


async def run_captive(
    command: str, environment: Mapping[str, str], *, at_once: asyncio.Event
) -> int:
    """Run a shell command to its end; return its exit status, or 128 + the signal that ended it.

    Cancelling sends it SIGTERM and waits for it, until `at_once` is set: then SIGKILL.
    """
    process = await asyncio.create_subprocess_shell(command, env={**os.environ, **environment})
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await _end(process, at_once)
        raise
    return 128 - status if status < 0 else status


async def _end(process: asyncio.subprocess.Process, at_once: asyncio.Event) -> None:
    """Wait for a command that was asked to end, as long as there is time for that."""
    ended = asyncio.ensure_future(process.wait())
    hurried = asyncio.ensure_future(at_once.wait())
    await asyncio.wait({ended, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await ended
