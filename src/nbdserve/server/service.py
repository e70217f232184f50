"""The life of the server: open the exports, listen, serve, drain, close, whatever ends it.

It ends by a signal, by the end of its captive command, or, with `--single`, by the end of its one
client. SIGTERM and SIGINT drain: no new client, requests in flight are finished and answered, then
the sockets are closed; what is not done by the deadline is aborted. A second signal aborts at once.
"""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from nbdserve.errors import DeviceError
from nbdserve.server.captive import captive_environment, run_captive
from nbdserve.server.clients import Clients
from nbdserve.server.commands import Commands
from nbdserve.server.control import ControlServer
from nbdserve.server.descriptors import allow_descriptors
from nbdserve.server.duplex import duplex
from nbdserve.server.exports import Exports
from nbdserve.server.limits import Limits
from nbdserve.server.listener import Listener, adopt, listen
from nbdserve.server.parent import exit_with_parent
from nbdserve.server.pidfile import pid_file
from nbdserve.server.report import Service
from nbdserve.server.state import AddedExports
from nbdserve.server.stop import Stop
from nbdserve.server.systemd import (
    Notifier,
    systemd_folder,
    take_listen_fds,
    watchdog_interval,
)
from nbdserve.server.tls import Tls
from nbdserve.settings import ServerSettings, TcpListener, TlsMode, UnixListener
from nbdserve.spec import ExportSpec
from nbdserve.threads import run_io

__all__ = ["listen_all", "print_uris", "serve"]

log = logging.getLogger(__name__)

# Seconds until a thread that holds the interpreter lock must let the event loop have it. Threads
# that read from a cold file take it back many times before the loop is even awake; at Python's
# 5 ms that was the 99th percentile of another client's hot reads.
_SWITCH_INTERVAL = 0.0002


async def serve(
    exports: Sequence[ExportSpec],
    settings: ServerSettings,
    *,
    config_file: Path | None = None,
    listeners: Sequence[Listener] | None = None,
) -> int:
    """Serve until told to stop; return the exit status.

    Args:
        exports: what is served.
        settings: how.
        config_file: where they were read from; an export that cannot be opened then keeps no
            other from being served.
        listeners: what listens already, shared with other workers; owned from now on.

    Raises:
        ConfigError: something is wrong as written.
        DeviceError: an export cannot be opened, or an address not be had. Nothing is left behind.
    """
    notifier = Notifier()
    passed = take_listen_fds()
    allow_descriptors(settings.max_connections)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    if settings.exit_with_parent:
        exit_with_parent()
    stop = Stop()
    with stop.on_signals(), AddedExports.kept_in(_state_dir(settings)) as added:
        tls = await run_io(Tls.open, settings.tls)
        if tls is not None:
            stop.on_hang_up = tls.reload
        overlay_dir = _overlay_dir(settings)  # before the exports, whose overlays lie there
        opening = Exports.open(exports, added=added.exports, keep_going=config_file is not None)
        opened = await stop.unless_told(opening, default=None)
        if opened is None:
            return stop.status
        try:
            clients = Clients(
                opened,
                _limits(settings),
                most=settings.max_connections,
                shared=bool(listeners),
                tls=tls,
            )
            service = Service(opened, clients)
            async with contextlib.AsyncExitStack() as stack:
                if not settings.single:
                    service.listeners = listen_all(settings, passed, stack, listeners)
                if (path := _control_path(settings)) is not None:
                    commands = Commands(service, added, overlay_dir)
                    socket_wanted = UnixListener(
                        path, settings.control_mode, settings.control_owner
                    )
                    await stack.enter_async_context(ControlServer(socket_wanted, commands))
                stack.enter_context(pid_file(settings.pid_file))
                if settings.single:
                    return await _serve_single(service, stop, settings)
                return await _serve(service, settings, notifier, stop)
        finally:
            await opened.close()


def _limits(settings: ServerSettings) -> Limits:
    return Limits(
        handshake_timeout=settings.handshake_timeout,
        max_in_flight=settings.max_in_flight,
        max_in_flight_bytes=settings.max_in_flight_bytes,
    )


def _control_path(settings: ServerSettings) -> Path | None:
    """Choose where nbdctl finds us: as told, or in the folder systemd made for this service.

    None of several workers can speak for the others.
    """
    if settings.workers > 1:
        return None
    folder = systemd_folder("RUNTIME_DIRECTORY")
    return settings.control or (folder / "control.sock" if folder else None)


def _state_dir(settings: ServerSettings) -> Path | None:
    """Choose where added exports are kept; without a control socket none can be added."""
    return settings.state_dir or (
        systemd_folder("STATE_DIRECTORY") if _control_path(settings) else None
    )


def _overlay_dir(settings: ServerSettings) -> Path | None:
    """Make the folder for guests' overlays, as told or in what systemd made for this service.

    Raises:
        DeviceError: it cannot be made.
    """
    folder = settings.overlay_dir
    if folder is None and _control_path(settings) is not None:
        kept = systemd_folder("STATE_DIRECTORY")
        folder = kept / "overlays" if kept else None
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise DeviceError(
            f"overlay folder {folder}: {exc.strerror}; check --overlay-dir", exc.errno
        ) from exc
    return folder.absolute()


def listen_all(
    settings: ServerSettings,
    passed: Sequence[int],
    stack: contextlib.ExitStack | contextlib.AsyncExitStack,
    given: Sequence[Listener] | None = None,
) -> list[Listener]:
    """Make every listener, to be closed by `stack`.

    Sockets that a worker was given, or that systemd passed, stand in for those of the settings.
    """
    listeners: list[Listener] = []

    def add(listener: Listener) -> None:
        stack.callback(listener.close)
        listener.tls = settings.tls.mode is TlsMode.REQUIRE
        listeners.append(listener)

    if given is not None:
        for listener in given:
            add(listener)
        return listeners
    if passed:
        if settings.listeners:
            log.info("sockets were passed in; the configured listeners are not used")
        for fd in passed:
            add(adopt(fd))
        return listeners
    default: UnixListener | TcpListener = UnixListener() if settings.run else TcpListener()
    for wanted in settings.listeners or (default,):
        for listener in listen(wanted):
            add(listener)
    return listeners


def print_uris(listeners: Sequence[Listener], exports: Sequence[str]) -> None:
    """Print the URI of each export on each listener, as --print-uri asks.

    Raises:
        DeviceError: stdout takes nothing.
    """
    try:
        uris = [listener.uri(name) for listener in listeners for name in exports]
        print("\n".join(uris), flush=True)  # noqa: T201 -- asked for by --print-uri
    except OSError as exc:
        raise DeviceError(
            f"--print-uri: cannot write to stdout: {exc.strerror}", exc.errno
        ) from exc


async def _serve(service: Service, settings: ServerSettings, notifier: Notifier, stop: Stop) -> int:
    listeners, clients = service.listeners, service.clients
    names = service.exports.names()
    if settings.print_uri:
        print_uris(listeners, names)
    for listener in listeners:
        log.info("listening uri=%s", listener.uri(_first(names)))
        clients.accept_on(listener.sock)
    try:
        return await _until_stopped(service, settings, notifier, stop)
    finally:
        for listener in listeners:  # before they are closed: libuv aborts over a closed one
            clients.refuse_on(listener.sock)
        clients.abort()
        await clients.gone()


async def _until_stopped(
    service: Service, settings: ServerSettings, notifier: Notifier, stop: Stop
) -> int:
    listeners, clients = service.listeners, service.clients
    names = service.exports.names()
    async with asyncio.TaskGroup() as group:
        notifier.notify("READY=1", f"STATUS=serving {len(names)} exports")
        watchdog = group.create_task(_pat_watchdog(notifier))
        status = 0
        if settings.run is None:
            await stop.told.wait()
        else:
            environment = _environment(listeners[0], _first(names))
            captive = run_captive(settings.run, environment, at_once=stop.told_again)
            ended: int | None = await stop.unless_told(captive, default=None)
            status = stop.status if ended is None else ended
        notifier.notify("STOPPING=1", "STATUS=draining")
        for listener in listeners:
            clients.refuse_on(listener.sock)
            listener.close()
        service.listeners = ()
        await _drain(service, settings.drain_timeout, stop)
        watchdog.cancel()
    return status


def _first(names: Sequence[str]) -> str:
    """Choose the export that one line or one command is told of."""
    return names[0] if names else ""


async def _serve_single(service: Service, stop: Stop, settings: ServerSettings) -> int:
    pair = duplex(sys.stdin.fileno(), sys.stdout.fileno())
    service.clients.add(pair.sock, peer="stdin")
    await stop.unless_told(service.clients.gone(), default=None)
    await _drain(service, settings.drain_timeout, stop)
    if not await run_io(pair.delivered, settings.drain_timeout):
        log.warning("stdout does not take the last replies")
    return 0


async def _drain(service: Service, deadline: float, stop: Stop) -> None:
    service.is_draining = True
    clients = service.clients
    if clients.count:
        log.info("draining clients=%d deadline=%gs", clients.count, deadline)
    clients.drain()
    try:
        async with asyncio.timeout(deadline):
            await stop.unless_told_again(clients.gone())
    except TimeoutError:
        pass
    if clients.count:
        log.warning("clients aborted with requests in flight count=%d", clients.count)
        clients.abort()
        await clients.gone()


def _environment(listener: Listener, export: str) -> dict[str, str]:
    address = listener.sock.getsockname()  # of a Unix socket bytes, if it is abstract
    unix = listener.sock.family == socket.AF_UNIX
    return dict(
        captive_environment(
            uri=listener.uri(export),
            unix_path=Path(address) if isinstance(address, str) else None,
            port=None if unix else address[1],
            export=export,
        )
    )


async def _pat_watchdog(notifier: Notifier) -> None:
    """Show the watchdog that the loop turns: from the loop, or it would prove nothing."""
    interval = watchdog_interval()
    while interval is not None:
        await asyncio.sleep(interval)
        notifier.notify("WATCHDOG=1")
