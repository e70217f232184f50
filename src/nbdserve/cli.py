"""The `nbdserve` command: what the operator typed, into specs and settings; exit statuses out.

Only this module (and `nbdctl`) prints and exits. Exit status: 0 when all went well, 2 when what was
written is wrong (usage, elements, keys, configuration), 1 when the world did not comply (no such
file, 404, port taken, damaged image), with `--run` that of the command.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from nbdserve import __version__
from nbdserve.build import resolve
from nbdserve.config import Configuration, read_configuration
from nbdserve.errors import ConfigError, DeviceError, NbdserveError
from nbdserve.helppages import element_page
from nbdserve.logs import configure
from nbdserve.params import COUNT, DURATION, MODE, PORT, TIMEOUT, Kind
from nbdserve.settings import DEFAULT_PORT, ServerSettings, TcpListener, UnixListener
from nbdserve.spec import WIRE_TEXT, ExportSpec, parse_layer, parse_source
from nbdserve.tlsoptions import add_tls_options, tls_settings

__all__ = ["argument_kind", "main", "parser", "run_command"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_OF_AN_EXPORT = ("words", "layer", "name", "description", "read_only")
_PRIVATE = "-"  # --unix -: a private socket
_EPILOG = """\
The leftmost layer is nearest the client, the rightmost nearest the source.

  nbdserve file disk.img
  nbdserve --layer xz http https://example.com/image.raw.xz
  nbdserve --layer cow --layer xz http URL --run 'qemu-system-x86_64 -drive file=$uri,format=raw'

`nbdserve --help ELEMENT` tells all about one source or layer.
"""


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of printing a usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see nbdserve --help")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; the reference pages read it too."""
    made = _Parser(
        prog="nbdserve",
        usage="nbdserve [options] [--layer NAME[:key=value[,key=value]…]]… "
        "SOURCE [ARG] [key=value …]",
        description="Serve a block device over NBD: a source, wrapped in layers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    _chain_options(made.add_argument_group("what is served"))
    _listener_options(made.add_argument_group("where"))
    add_tls_options(made.add_argument_group("over TLS"))
    _life_options(made.add_argument_group("how"))
    _other_options(made.add_argument_group("other"))
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return made


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run_command("nbdserve", lambda: _run(sys.argv[1:] if argv is None else argv)))


def run_command(name: str, command: Callable[[], int]) -> int:
    """Call `command`; turn what it raises into one line on stderr and an exit status."""
    _fill_standard_streams()
    try:
        status = command()
        _show("")
    except BrokenPipeError:
        # the reader of our output has gone; the interpreter's last flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as exc:  # noqa: BLE001 -- the operator gets one line, the log the rest
        return _failure(name, exc)
    return status


def _show(text: str) -> None:
    """Write to stdout, and with it whatever was printed before."""
    try:
        print(text, end="", flush=True)  # noqa: T201 -- the command's answer
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise DeviceError(f"cannot write to stdout: {exc.strerror}", exc.errno) from exc


def _fill_standard_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Else the next socket would get its number: the log would go to a client, and libuv aborts the
    process when such a socket is closed.
    """
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
            setattr(sys, stream, os.fdopen(number, "w" if number else "r", closefd=False))


def _failure(name: str, exc: BaseException) -> int:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, NbdserveError):
        _complain(name, str(exc))
        return 2 if isinstance(exc, ConfigError) else 1
    if isinstance(exc, OSError):
        where = "" if exc.filename is None else f"{exc.filename}: "
        _complain(name, f"{where}{exc.strerror or exc}")
        return 1
    _complain(name, f"internal error: {type(exc).__name__}: {exc} (-v shows where)")
    log.debug("internal error", exc_info=exc)
    return 1


def _complain(name: str, message: str) -> None:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 -- the command's voice


def _run(argv: Sequence[str]) -> int:
    arguments = parser().parse_intermixed_args(argv)
    if arguments.help is not None:
        page = element_page(arguments.help) if arguments.help else parser().format_help()
        _show(page)
        return 0
    if arguments.version:
        _show(f"nbdserve {__version__}\n")
        return 0
    configure(verbose=arguments.verbose, form=arguments.log_format or "text")
    configuration = _configuration(arguments)
    if configuration.log_format and not arguments.log_format:
        configure(verbose=arguments.verbose, form=configuration.log_format)
    for export in configuration.exports:
        resolve(export)  # what is wrong as written is told before anything is opened
    return _serve(configuration)


def _serve(configuration: Configuration) -> int:
    # --help and errors start without these
    from nbdserve.server.service import serve  # noqa: PLC0415 -- --help starts without it
    from nbdserve.server.workers import run_workers  # noqa: PLC0415 -- --help starts without it

    exports, settings = configuration.exports, configuration.settings

    def run(settings: ServerSettings, listeners: Sequence[Any] | None) -> int:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(
                serve(exports, settings, config_file=configuration.file, listeners=listeners)
            )

    if settings.workers == 1:
        return run(settings, None)
    return run_workers(
        exports, settings, lambda *given: run_command("nbdserve", lambda: run(*given))
    )


def _loop_factory() -> Any:
    """Return uvloop's factory where it is installed; None is asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 -- optional
    except ImportError:
        return None
    return uvloop.new_event_loop


# Options


def argument_kind(kind: Kind[Any]) -> Any:
    """Use a parameter kind as argparse's type."""

    def parse(text: str) -> Any:
        try:
            return kind.parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r} will not do: {exc}") from None

    return parse


def _chain_options(group: Any) -> None:
    group.add_argument(
        "--layer", action="append", default=[], metavar="NAME[:key=value,…]",
        help="wrap what follows in a layer; may be given several times",
    )  # fmt: skip
    group.add_argument(
        "-e",
        "--name",
        type=argument_kind(WIRE_TEXT),
        metavar="EXPORT",
        help='the export\'s name (default "")',
    )
    group.add_argument(
        "--description", type=argument_kind(WIRE_TEXT), metavar="TEXT",
        help="told to clients that list exports",
    )  # fmt: skip
    group.add_argument("-r", "--read-only", action="store_true", help="refuse writes")
    group.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="serve what a TOML file describes"
    )


def _listener_options(group: Any) -> None:
    group.add_argument(
        "-U", "--unix", action="append", default=[], metavar="PATH|-",
        help="listen on a Unix socket; - makes a private one (see --print-uri)",
    )  # fmt: skip
    group.add_argument(
        "--unix-mode", type=argument_kind(MODE), metavar="MODE", help="its permissions, e.g. 660"
    )
    group.add_argument("--unix-owner", metavar="USER[:GROUP]", help="its owner")
    group.add_argument(
        "-p",
        "--port",
        type=argument_kind(PORT),
        metavar="N",
        help=f"listen on TCP (default {DEFAULT_PORT})",
    )
    group.add_argument(
        "-i", "--bind", metavar="ADDRESS", help="the address to listen on (default loopback only)"
    )
    group.add_argument(
        "-s", "--single", action="store_true", help="serve one client on stdin and stdout"
    )


def _life_options(group: Any) -> None:
    group.add_argument(
        "--run", metavar="COMMAND",
        help="run a shell command meanwhile, with $uri, $unixsocket, $nbd, $port and $exportname; "
        "on a private Unix socket if no listener is named; ends with its exit status",
    )  # fmt: skip
    group.add_argument(
        "--control", type=Path, metavar="PATH", help="a Unix socket for nbdctl (default none)"
    )
    group.add_argument(
        "--control-mode", type=argument_kind(MODE), metavar="MODE",
        help="its permissions; 660 lets its group control the daemon (default 600)",
    )  # fmt: skip
    group.add_argument("--control-owner", metavar="USER[:GROUP]", help="its owner")
    group.add_argument(
        "--state-dir", type=Path, metavar="PATH",
        help="a folder to keep exports in that nbdctl adds (default none)",
    )  # fmt: skip
    group.add_argument(
        "--overlay-dir", type=Path, metavar="PATH",
        help="a folder for guests' overlays, made with mode 700; nbdctl overlay lists and deletes "
        "there (default none)",
    )  # fmt: skip
    group.add_argument("-P", "--pid-file", type=Path, metavar="PATH", help="write the process id")
    group.add_argument(
        "--exit-with-parent", action="store_true", help="end when the parent process does"
    )
    group.add_argument("--print-uri", action="store_true", help="print each export's URI on stdout")
    group.add_argument(
        "--handshake-timeout", type=argument_kind(TIMEOUT), metavar="D",
        help="drop a client that has not chosen an export by then (default 10s)",
    )  # fmt: skip
    group.add_argument(
        "--max-connections",
        type=argument_kind(COUNT),
        metavar="N",
        help="clients at once (default 1000)",
    )
    group.add_argument(
        "--drain-timeout", type=argument_kind(DURATION), metavar="D",
        help="what requests in flight get at shutdown (default 30s)",
    )  # fmt: skip

    group.add_argument(
        "--workers", type=argument_kind(COUNT), metavar="N",
        help="serve in N processes, for exports that are only read (default 1)",
    )  # fmt: skip


def _other_options(group: Any) -> None:
    group.add_argument("-v", "--verbose", action="store_true", help="log DEBUG messages too")
    group.add_argument("--log-format", choices=("text", "json"), help="default text")
    group.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    group.add_argument(
        "--help",
        nargs="?",
        const="",
        metavar="ELEMENT",
        help="print this, or one source's or layer's own page",
    )


# From arguments to a configuration


def _configuration(arguments: argparse.Namespace) -> Configuration:
    if arguments.config is not None:
        if any(getattr(arguments, option) for option in _OF_AN_EXPORT):
            raise ConfigError(
                "--config brings its own exports; write sources, layers, names, descriptions and "
                "read-only there"
            )
        written = read_configuration(arguments.config)
        settings = _settings(arguments, written.settings)
        return Configuration(written.exports, settings, written.log_format, arguments.config)
    settings = _settings(arguments, ServerSettings())
    about_one = (arguments.words, arguments.layer, arguments.name, arguments.description)
    if settings.control is not None and not any(about_one):
        return Configuration((), settings, None, None)  # nbdctl adds exports
    export = ExportSpec(
        source=parse_source(arguments.words),
        layers=tuple(map(parse_layer, arguments.layer)),
        name=arguments.name or "",
        description=arguments.description or "",
        read_only=arguments.read_only,
    )
    return Configuration((export,), settings, None, None)


def _settings(arguments: argparse.Namespace, written: ServerSettings) -> ServerSettings:
    """Let what stands on the command line replace what a file says."""
    settings = replace(
        written,
        listeners=_listeners(arguments) or written.listeners,
        single=arguments.single,
        run=arguments.run,
        control=arguments.control or written.control,
        control_mode=_given(arguments.control_mode, written.control_mode),
        control_owner=arguments.control_owner or written.control_owner,
        state_dir=arguments.state_dir or written.state_dir,
        overlay_dir=arguments.overlay_dir or written.overlay_dir,
        pid_file=arguments.pid_file or written.pid_file,
        exit_with_parent=arguments.exit_with_parent,
        print_uri=arguments.print_uri,
        handshake_timeout=_given(arguments.handshake_timeout, written.handshake_timeout),
        max_connections=_given(arguments.max_connections, written.max_connections),
        drain_timeout=_given(arguments.drain_timeout, written.drain_timeout),
        workers=_given(arguments.workers, written.workers),
        tls=tls_settings(arguments, written.tls),
    )
    if settings.single and (_listeners(arguments) or settings.run or settings.print_uri):
        raise ConfigError(
            "--single serves stdin and stdout; name no listener, --run or --print-uri besides"
        )
    return settings


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _listeners(arguments: argparse.Namespace) -> tuple[UnixListener | TcpListener, ...]:
    found: list[UnixListener | TcpListener] = [
        UnixListener(
            None if path == _PRIVATE else Path(path), arguments.unix_mode, arguments.unix_owner
        )
        for path in arguments.unix
    ]
    if not found and (arguments.unix_mode is not None or arguments.unix_owner):
        raise ConfigError("--unix-mode and --unix-owner need --unix")
    if arguments.port is not None or arguments.bind is not None:
        port = DEFAULT_PORT if arguments.port is None else arguments.port
        found.append(TcpListener(arguments.bind or "localhost", port))
    return tuple(found)
