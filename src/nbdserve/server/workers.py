"""Several processes that share the listening sockets, for more cores than one.

Each worker is a whole server with chains of its own, forked before anything is opened; whichever
of them is free takes the next client. They share nothing but the kernel: its page cache, and the
files that chains read. That is right only for exports nobody writes to, for a flush on one
connection would have to cover the writes of all (CAN_MULTI_CONN), so nothing else is accepted.

The parent serves nobody. It listens, starts one worker after the other (so that what is wrong is
told once), speaks to the service manager for all, passes signals on, and waits. If a worker ends
unasked the others are ended too: the service manager starts the whole anew.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import struct
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from nbdserve.errors import ConfigError
from nbdserve.server.listener import Listener
from nbdserve.server.parent import exit_with_parent
from nbdserve.server.pidfile import pid_file
from nbdserve.server.service import listen_all, print_uris
from nbdserve.server.systemd import Notifier, take_listen_fds
from nbdserve.settings import ServerSettings
from nbdserve.spec import ExportSpec

__all__ = ["run_workers"]

log = logging.getLogger(__name__)

_CREDENTIALS: Final = struct.Struct("3I")  # struct ucred: pid, uid, gid

Serve = Callable[[ServerSettings, Sequence[Listener]], int]
"""Serves in this process on sockets that listen already, to the end; returns the exit status."""


def run_workers(exports: Sequence[ExportSpec], settings: ServerSettings, serve: Serve) -> int:
    """Serve in `settings.workers` processes until told to stop; return the exit status.

    Raises:
        ConfigError: an export may be written to, or the settings want one process.
        DeviceError: an address cannot be had.
    """
    _refuse_unshareable(exports, settings)
    notifier = Notifier()
    if settings.exit_with_parent:
        exit_with_parent()
    with contextlib.ExitStack() as stack:
        listeners = listen_all(settings, take_listen_fds(), stack)
        messages = stack.enter_context(_Messages.listening())
        wakeup = stack.enter_context(_signals_wake())
        workers = _Workers(serve, settings, listeners)
        status = 0
        while len(workers.alive) < settings.workers and not status and not wakeup.told:
            workers.start(messages)
            status = _wait_until_ready(workers, messages, wakeup)
        if status or wakeup.told:
            return workers.end(status)
        try:
            stack.enter_context(pid_file(settings.pid_file))
            if settings.print_uri:
                print_uris(listeners, [export.name for export in exports])
        except BaseException:
            workers.end(1)
            raise
        notifier.notify(
            "READY=1", f"STATUS=serving {len(exports)} exports, {settings.workers} workers"
        )
        return _supervise(workers, messages, wakeup, notifier)


def _refuse_unshareable(exports: Sequence[ExportSpec], settings: ServerSettings) -> None:
    for export in exports:
        if not export.read_only:
            raise ConfigError(
                f"--workers: export {export.name!r} may be written to, and a flush in one process "
                "would not cover the writes of another; serve it --read-only, or in one process"
            )
        if export.exclusive:
            raise ConfigError(
                f"--workers: export {export.name!r} is exclusive, and no process knows of the "
                "clients of another; serve it in one process"
            )
    alone = (settings.run, settings.control, settings.state_dir, settings.overlay_dir)
    if settings.single or any(one is not None for one in alone):
        raise ConfigError(
            "--workers goes with none of --single, --run, --control, --state-dir and --overlay-dir"
        )


class _Wakeup:
    """Tells of signals by becoming readable.

    Attributes:
        told: how many asked to stop.
        hung_up: whether a SIGHUP has come since that was last asked.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.told = 0
        self.hung_up = False

    def fileno(self) -> int:
        return self.sock.fileno()

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = self.sock.recv(64)
            self.told += sum(n in (signal.SIGTERM, signal.SIGINT) for n in numbers)
            self.hung_up |= signal.SIGHUP in numbers


@contextlib.contextmanager
def _signals_wake() -> Iterator[_Wakeup]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        signal.set_wakeup_fd(theirs.fileno())
        try:
            yield _Wakeup(ours)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)


class _Messages:
    """What workers tell the service manager, received in its place."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.sock = sock
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def listening(cls) -> Iterator["_Messages"]:
        with tempfile.TemporaryDirectory(prefix="nbdserve-") as folder:
            path = Path(folder) / "notify"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                sock.bind(os.fspath(path))
                sock.setblocking(False)
                yield cls(sock, path)

    def fileno(self) -> int:
        return self.sock.fileno()

    def take(self) -> tuple[int, list[str]]:
        """Return who has sent something, by its process id, and the assignments that are in it."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        except BlockingIOError:
            return 0, []
        for _, kind, told in ancillary:
            if kind == socket.SCM_CREDENTIALS:
                return _CREDENTIALS.unpack(told)[0], data.decode().split("\n")
        return 0, []


class _Watchdog:
    """Tells the service manager that all workers turn when each has said so since the last time."""

    def __init__(self) -> None:
        self._patted: set[int] = set()

    def pat(self, pid: int, alive: Collection[int]) -> bool:
        """Note that one turns; tell whether all do."""
        self._patted.add(pid)
        if not self._patted.issuperset(alive):
            return False
        self._patted.clear()
        return True


class _Workers:
    """The worker processes, by the descriptors that tell of their end."""

    def __init__(
        self, serve: Serve, settings: ServerSettings, listeners: Sequence[Listener]
    ) -> None:
        self._serve = serve
        self._settings = replace(settings, pid_file=None, print_uri=False, exit_with_parent=True)
        self._listeners = listeners
        self.alive: dict[int, int] = {}

    def start(self, messages: _Messages) -> None:
        pid = os.fork()
        if pid:
            self.alive[os.pidfd_open(pid)] = pid
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            os.setpgid(0, 0)  # a terminal's SIGINT comes through the parent, once
            os.environ["NOTIFY_SOCKET"] = os.fspath(messages.path)
            if "WATCHDOG_PID" in os.environ:
                os.environ["WATCHDOG_PID"] = str(os.getpid())
            status = self._serve(self._settings, [Listener(each.sock) for each in self._listeners])
        finally:
            os._exit(status)

    def tell(self, number: int) -> None:
        for pid in self.alive.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def reap(self, pidfd: int) -> int:
        """Take leave of a worker that has ended; return its status as a shell would."""
        pid = self.alive.pop(pidfd)
        os.close(pidfd)
        return _status(os.waitpid(pid, 0)[1])

    def end(self, status: int) -> int:
        """End all that are left; return `status`, or the first other than 0 of theirs."""
        self.tell(signal.SIGTERM)
        while self.alive:
            status = self.reap(next(iter(self.alive))) or status
        return status


def _wait_until_ready(workers: _Workers, messages: _Messages, wakeup: _Wakeup) -> int:
    """Wait for the worker started last; return the status of one that ended instead, or 0."""
    while not wakeup.told:
        for source in _readable(workers, messages, wakeup):
            if source is wakeup:
                wakeup.take()
            elif source is messages:
                if "READY=1" in messages.take()[1]:
                    return 0
            elif isinstance(source, int):
                return workers.reap(source) or 1
    return 0


def _supervise(
    workers: _Workers, messages: _Messages, wakeup: _Wakeup, notifier: Notifier
) -> int:  # fmt: skip
    """Stand between the workers and the world until all have ended."""
    status = told = 0
    watchdog = _Watchdog()
    while workers.alive:
        for source in _readable(workers, messages, wakeup):
            if source is messages:
                pid, told_us = messages.take()
                if "WATCHDOG=1" in told_us and watchdog.pat(pid, workers.alive.values()):
                    notifier.notify("WATCHDOG=1")
            elif source is wakeup:
                wakeup.take()
            elif isinstance(source, int):
                ended = workers.reap(source)
                status = status or ended
                if not told:
                    log.error("a worker ended unasked, ending the others status=%d", ended)
                    status = status or 1
                    wakeup.told = max(wakeup.told, 1)
        if wakeup.hung_up:
            wakeup.hung_up = False
            workers.tell(signal.SIGHUP)
        if wakeup.told > told:
            if not told:
                notifier.notify("STOPPING=1", "STATUS=draining")
            told = wakeup.told
            workers.tell(signal.SIGTERM)
    return status


def _readable(
    workers: _Workers, messages: _Messages, wakeup: _Wakeup
) -> list[_Messages | _Wakeup | int]:
    """Wait until anything happens."""
    sources: list[_Messages | _Wakeup | int] = [messages, wakeup, *workers.alive]
    return select.select(sources, [], [])[0]


def _status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code
