"""The control socket: who may connect, and a thin driver between its bytes and the commands.

Invariants: nothing a control client does ends or blocks the daemon: lines, clients and waits are
bounded, and what goes wrong ends that client alone. A command whose client went away is cancelled.
Only root and the user the daemon runs as get an answer, and where the socket was asked to be
writable for its group, that group: the socket's mode keeps others out, and the kernel's word on who
connected (unix(7), SO_PEERCRED, SO_PEERGROUPS) those whom a chmod let in. Behind a socket that sshd
forwards, that is the user who logged in there.
"""

import array
import asyncio
import contextlib
import grp
import logging
import os
import select
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from nbdserve.control.codec import LONGEST_REQUEST, LineReader, encode_reply, parse_request
from nbdserve.control.messages import CommandError, Failure, FailureKind, Progress, Reply, Result
from nbdserve.errors import ConfigError, DeviceError, ProtocolError
from nbdserve.server.commands import Commands
from nbdserve.server.listener import Listener, listen
from nbdserve.settings import UnixListener

__all__ = ["ControlServer"]

log = logging.getLogger(__name__)

_MOST_CLIENTS: Final = 16
_IDLE: Final = 30.0  # seconds a client may take for its next request
_SEND: Final = 30.0  # seconds a client may take to read a reply
_RECEIVE: Final = 16 << 10
_RETRY_ACCEPT: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3I")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; the socket module does not name it
_MOST_GROUPS: Final = 256  # Python lets a socket option have 1024 bytes
_UNMAPPED: Final = 65534  # proc(5), overflowgid: any group that this user namespace does not know


class ControlServer:
    """Listen for control clients; an asynchronous context manager.

    Args:
        wanted: the socket; a mode that lets its group write lets that group in.
        commands: what they may ask for.

    Raises:
        ConfigError: the path is too long, or the owner does not exist.
        DeviceError: it cannot be had.
    """

    def __init__(self, wanted: UnixListener, commands: Commands) -> None:
        (self._listener,) = listen(wanted)
        self._group = _group_of(self._listener, wanted)
        self._commands = commands
        self._room = asyncio.Semaphore(_MOST_CLIENTS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._start(self._accept(), "control")
        log.info("control socket path=%s", self._listener.path)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    def _start(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, _ = await loop.sock_accept(self._listener.sock)
            except OSError as exc:
                self._room.release()
                log.warning("cannot accept a control client: %s", exc.strerror)
                await asyncio.sleep(_RETRY_ACCEPT)
                continue
            sock.setblocking(False)
            self._start(self._serve(sock), "control client")

    async def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                await _Session(sock, self._commands, self._group).run()
        except (OSError, TimeoutError) as exc:
            log.debug("control client vanished: %s", exc)
        except Exception:
            log.exception("a control client failed")
        finally:
            self._room.release()


class _GoneError(Exception):
    """The client does not take what it is told."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Session:
    """One control client."""

    def __init__(self, sock: socket.socket, commands: Commands, group: int | None) -> None:
        self._sock = sock
        self._group = group
        self._commands = commands
        self._lines = LineReader(LONGEST_REQUEST)
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._ended = False  # it sends no more, but may still read
        self._reading = False

    async def run(self) -> None:
        """Answer one request after the other until the client leaves."""
        if (uid := self._stranger()) is not None:
            log.warning("control client refused uid=%d", uid)
            who = "root and" if self._group is None else f"root, group {_name_of(self._group)} and"
            text = f"only {who} the user the daemon runs as may control it"
            await self._send(Failure(0, FailureKind.PERMISSION, text))
            return
        try:
            while (line := await self._next_line()) is not None:
                await self._unless_gone(line)
        except ProtocolError as exc:
            await self._send(Failure(0, FailureKind.REQUEST, str(exc)))
        finally:
            self._pause()

    def _stranger(self) -> int | None:
        """Return the user the client runs as, if it may not control this daemon."""
        told = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, gid = _CREDENTIALS.unpack(told)
        known = uid in {0, os.geteuid()}
        if not known and self._group is not None:
            known = self._group in {gid, *_further_groups(self._sock)}
        return None if known else int(uid)

    async def _unless_gone(self, line: bytes) -> None:
        """Carry a request out, or cancel it when its client goes away."""
        work = self._loop.create_task(self._answer(line))
        gone = self._loop.create_task(self._gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait({work, gone})
        if not work.cancelled():
            work.result()

    async def _answer(self, line: bytes) -> None:
        number = 0

        async def report(facts: Mapping[str, Any]) -> None:
            try:
                await self._send(Progress(number, facts))
            except OSError as exc:
                raise _GoneError(exc) from exc

        reply: Reply
        try:
            request = parse_request(line)
            number = request.id
            reply = Result(number, await self._commands.carry_out(request, report))
        except CommandError as exc:
            reply = Failure(number, exc.kind, str(exc))
        except DeviceError as exc:
            reply = Failure(number, FailureKind.DEVICE, str(exc))
        except ConfigError as exc:
            reply = Failure(number, FailureKind.ARGUMENT, str(exc))
        except ProtocolError:
            raise  # the client's fault: `run` ends it
        except _GoneError as exc:
            raise exc.reason from None
        except OSError as exc:
            where = "" if exc.filename is None else f"{exc.filename}: "
            reply = Failure(number, FailureKind.DEVICE, f"{where}{exc.strerror or exc}")
        except Exception as exc:
            log.exception("a control command failed")
            reply = Failure(number, FailureKind.INTERNAL, f"{type(exc).__name__}: {exc}")
        await self._send(reply)

    async def _send(self, reply: Reply) -> None:
        async with asyncio.timeout(_SEND):
            await self._loop.sock_sendall(self._sock, encode_reply(reply))

    # Receiving: by a callback, so that nothing is lost when a wait is cancelled

    async def _next_line(self) -> bytes | None:
        async with asyncio.timeout(_IDLE):
            while (line := self._lines.next_line()) is None:
                if self._ended:
                    return None
                self._arrived.clear()
                self._resume()
                await self._arrived.wait()
        self._resume()
        return line

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._arrived.set()
        if data:
            self._lines.receive_data(data)
            if self._lines.is_full:
                self._pause()
            return
        self._pause()
        self._ended = True
        if _hung_up(self._sock):
            self._gone.set()

    def _resume(self) -> None:
        if not self._reading and not self._ended and not self._lines.is_full:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())


def _hung_up(sock: socket.socket) -> bool:
    """Tell a client that is gone from one that has said all it has to say (`nc -N`)."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _group_of(listener: Listener, wanted: UnixListener) -> int | None:
    """Return the group that may control us, if the socket was asked to be writable for it."""
    if not (wanted.mode or 0) & stat.S_IWGRP:
        return None
    assert listener.path is not None, "a Unix socket has a path"
    group = listener.path.stat().st_gid
    return None if group == _UNMAPPED else group


def _further_groups(sock: socket.socket) -> Sequence[int]:
    """Return the supplementary groups of who connected; none where there are too many."""
    found = array.array("I")
    with contextlib.suppress(OSError):
        most = _MOST_GROUPS * found.itemsize
        found.frombytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, most))
    return found.tolist()


def _name_of(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
