"""`--run COMMAND`: a command that runs while the server does, and ends it.

The command is the shell's; what it needs to know is in its environment, so that `$uri` is expanded
where it stands and nothing has to be quoted twice. Its meaning is nbdkit's (nbdkit-captive(1)).
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

__all__ = ["captive_environment", "run_captive"]


def captive_environment(
    *, uri: str, unix_path: Path | None, host: str, port: int | None, export: str
) -> Mapping[str, str]:
    """Make the variables a captive command sees.

    Returns:
        uri: the export's; nbd: the same in the form qemu takes everywhere; unixsocket and port:
        empty where there is none; exportname.
    """
    if unix_path is not None:
        nbd = f"nbd:unix:{unix_path}" + (f":exportname={export}" if export else "")
    else:
        nbd = f"nbd://{host}:{port}" + (f"/{quote(export, safe='')}" if export else "")
    return {
        "uri": uri,
        "nbd": nbd,
        "unixsocket": str(unix_path or ""),
        "port": str(port or ""),
        "exportname": export,
    }


async def run_captive(command: str, environment: Mapping[str, str]) -> int:
    """Run a shell command to its end; return its exit status, or 128 + the signal that ended it.

    Cancelling sends it SIGTERM and waits for it.
    """
    process = await asyncio.create_subprocess_shell(command, env={**os.environ, **environment})
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
        raise
    return 128 - status if status < 0 else status
