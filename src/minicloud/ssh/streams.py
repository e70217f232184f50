"""A stream through an ssh connection whose end by accident is a NodeError, as everywhere above.

asyncssh hands the exception that ended the connection to whoever reads or writes at that moment; it
is none of ours, and would end a command by a traceback.
"""

import asyncssh

from minicloud.ssh.diagnosing import lost

__all__ = ["Reader", "Writer"]


class Reader:
    """What comes from the far end; the methods are asyncio.StreamReader's.

    Raises:
        NodeError: `ssh-lost`, by every method.
    """

    def __init__(self, inner: asyncssh.SSHReader[bytes]) -> None:
        self._inner = inner

    async def read(self, n: int = -1, /) -> bytes:
        """Return some bytes, none at the end; all of them without a number."""
        try:
            return await self._inner.read(n)
        except asyncssh.Error as exc:
            raise lost() from exc

    async def readline(self) -> bytes:
        """Return a line with its end, or what is left before the end of the stream."""
        try:
            return await self._inner.readline()
        except asyncssh.Error as exc:
            raise lost() from exc

    async def readexactly(self, n: int) -> bytes:
        """Return so many bytes; asyncio.IncompleteReadError if there are fewer."""
        try:
            return await self._inner.readexactly(n)
        except asyncssh.Error as exc:
            raise lost() from exc


class Writer:
    """What goes to the far end; the methods are asyncio.StreamWriter's.

    Raises:
        NodeError: `ssh-lost`, by `drain`.
    """

    def __init__(self, inner: asyncssh.SSHWriter[bytes]) -> None:
        self._inner = inner

    def write(self, data: bytes, /) -> None:
        """Take bytes to send."""
        self._inner.write(data)

    async def drain(self) -> None:
        """Wait until more can be taken."""
        try:
            await self._inner.drain()
        except asyncssh.Error as exc:
            raise lost() from exc

    def write_eof(self) -> None:
        """Send no more."""
        self._inner.write_eof()

    def close(self) -> None:
        """End the stream."""
        self._inner.close()

    async def wait_closed(self) -> None:
        """Wait until it has ended."""
        await self._inner.wait_closed()
