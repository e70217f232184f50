"""The TOML configuration: the same tree as the command line, spelled out.

    [server]
    unix = "/run/nbdserve/nbd.sock"
    port = 10809

    [[export]]
    name = "debian"
    description = "Debian 12, copy on write"
    layers = ["cow", { type = "cache", size = "256M" }, "xz"]
    source = { type = "http", url = "https://example.com/debian-12.raw.xz" }

Every error names file, table and key, and all errors of a file are found before any is told.
"""

import errno
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nbdserve.build import resolve
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.logs import LogFormat
from nbdserve.params import (
    BOOLEAN,
    COUNT,
    DURATION,
    MODE,
    PATH,
    PORT,
    SIZE,
    TEXT,
    TIMEOUT,
    Kind,
    Value,
    choice,
    closest,
    shown,
)
from nbdserve.settings import (
    DEFAULT_PORT,
    ServerSettings,
    TcpListener,
    TlsMode,
    TlsSettings,
    UnixListener,
)
from nbdserve.spec import WIRE_TEXT, ElementSpec, ExportSpec

__all__ = [
    "SERVER_KEYS",
    "Configuration",
    "configuration_errors",
    "read_configuration",
    "read_export",
]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A server as described.

    Attributes:
        exports: with names that differ; none only where a control socket may add some.
        settings: how to serve them.
        log_format: if the file says so.
        file: where all this was read from; None for the command line.
    """

    exports: tuple[ExportSpec, ...]
    settings: ServerSettings
    log_format: LogFormat | None
    file: Path | None


@dataclass(frozen=True, slots=True)
class ServerKey:
    """A key of `[server]`: its kind, whether a list may stand for it, and what it means."""

    kind: Kind[Any]
    help: str
    many: bool = False


SERVER_KEYS: Final[Mapping[str, ServerKey]] = {
    "unix": ServerKey(PATH, "Unix socket to listen on", many=True),
    "unix-mode": ServerKey(MODE, 'its permissions, in quotes, e.g. "660"'),
    "unix-owner": ServerKey(TEXT, "its owner, user[:group]"),
    "port": ServerKey(PORT, f"TCP port to listen on (default {DEFAULT_PORT})"),
    "bind": ServerKey(TEXT, "address to listen on (default loopback only)", many=True),
    "control": ServerKey(
        PATH, "Unix socket for nbdctl (default $RUNTIME_DIRECTORY/control.sock under systemd)"
    ),
    "control-mode": ServerKey(
        MODE, 'its permissions, in quotes; "660" lets its group control the daemon (default "600")'
    ),
    "control-owner": ServerKey(TEXT, "its owner, user[:group]"),
    "state-dir": ServerKey(
        PATH, "folder to keep exports in that nbdctl adds (default $STATE_DIRECTORY under systemd)"
    ),
    "overlay-dir": ServerKey(
        PATH,
        "folder for guests' overlays, made with mode 700; nbdctl overlay lists and deletes there "
        "(default $STATE_DIRECTORY/overlays under systemd)",
    ),
    "tls": ServerKey(
        choice(*TlsMode), "whether clients may or must speak TLS (default on with credentials)"
    ),
    "tls-certificates": ServerKey(
        PATH, "folder with server-cert.pem, server-key.pem and ca-cert.pem; read anew upon SIGHUP"
    ),
    "tls-verify-peer": ServerKey(
        BOOLEAN, "let in only clients with a certificate of ca-cert.pem (default false)"
    ),
    "tls-psk": ServerKey(PATH, "file of pre-shared keys, NAME:HEXKEY a line; needs Python 3.13"),
    "pid-file": ServerKey(PATH, "where to write the process id"),
    "handshake-timeout": ServerKey(TIMEOUT, "for a client to choose an export (default 10s)"),
    "max-connections": ServerKey(COUNT, "clients at once (default 1000)"),
    "drain-timeout": ServerKey(DURATION, "for requests in flight at shutdown (default 30s)"),
    "max-in-flight": ServerKey(COUNT, "requests at once, a connection (default 256)"),
    "max-in-flight-bytes": ServerKey(SIZE, "of their data, a connection (default 8M)"),
    "log-format": ServerKey(choice("text", "json"), "form of the log (default text)"),
}
_EXPORT_KEYS = ("name", "description", "read-only", "exclusive", "layers", "source")


def read_configuration(path: Path) -> Configuration:
    """Read a configuration.

    Raises:
        ConfigError: it has errors; the first one, and how many more there are.
        DeviceError: it cannot be read.
    """
    configuration, errors = _read(path)
    if configuration is None:
        more = len(errors) - 1
        if more:
            first = errors[0]
            raise ConfigError(f"{first} (and {more} more: nbdctl check {path})")
        raise errors[0]
    return configuration


def configuration_errors(path: Path) -> tuple[Configuration | None, list[ConfigError]]:
    """Read a configuration and look up all its elements.

    Returns:
        The configuration, or None if it has errors; and all its errors.

    Raises:
        DeviceError: it cannot be read.
    """
    return _read(path)


def read_export(table: Mapping[str, Any], *, file: Path | None = None) -> ExportSpec:
    """Read one export, written as an [[export]] table is.

    Raises:
        ConfigError: it is wrong as written.
    """
    reader = _Reader(file)
    spec = reader.export(table, "export")
    if spec is None or reader.errors:
        raise reader.errors[0]
    return spec


def _read(path: Path) -> tuple[Configuration | None, list[ConfigError]]:
    try:
        tree = tomllib.loads(path.read_text())
    except OSError as exc:
        remedy = "check its permissions" if exc.errno == errno.EACCES else "check the path"
        raise DeviceError(f"{path}: {exc.strerror}; {remedy}", exc.errno) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        return None, [ConfigError(f"not valid TOML: {exc}", file=path)]
    reader = _Reader(path)
    configuration = reader.read(tree)
    return (None if reader.errors else configuration), reader.errors


class _Reader:
    """Reads one file; `errors` fills up meanwhile."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.errors: list[ConfigError] = []

    def read(self, tree: Mapping[str, Any]) -> Configuration:
        for key in tree:
            if key not in ("server", "export"):
                self._wrong(None, None, f"unknown table {key!r}; known: [server], [[export]]")
        settings, log_format = self._server(tree.get("server", {}))
        exports = self._exports(tree.get("export", []))
        if not exports and not self.errors and settings.control is None:
            self._wrong(None, None, "no export; add an [[export]] table with a source")
        return Configuration(tuple(exports), settings, log_format, self._path)

    # The server table

    def _server(self, table: Any) -> tuple[ServerSettings, LogFormat | None]:
        if not isinstance(table, dict):
            self._wrong("server", None, "is a table: write [server]")
            return ServerSettings(), None
        values = {key: self._server_value(key, value) for key, value in table.items()}
        values = {key: value for key, value in values.items() if value is not None}
        listeners: list[UnixListener | TcpListener] = [
            UnixListener(path, values.get("unix-mode"), values.get("unix-owner"))
            for path in values.get("unix", ())
        ]
        if "port" in values or "bind" in values:
            port = values.get("port", DEFAULT_PORT)
            listeners += [TcpListener(host, port) for host in values.get("bind", ("localhost",))]
        names = ("control", "control-mode", "control-owner", "state-dir", "overlay-dir", "pid-file",
                 "handshake-timeout", "max-connections", "drain-timeout", "max-in-flight",
                 "max-in-flight-bytes")  # fmt: skip
        given = {name.replace("-", "_"): values[name] for name in names if name in values}
        tls = TlsSettings(
            None if (mode := values.get("tls")) is None else TlsMode(mode),
            values.get("tls-certificates"),
            values.get("tls-verify-peer", False),
            values.get("tls-psk"),
        )
        settings = ServerSettings(listeners=tuple(listeners), tls=tls, **given)
        return settings, values.get("log-format")

    def _server_value(self, key: str, value: Any) -> Any:
        known = SERVER_KEYS.get(key)
        if known is None:
            self._wrong("server", None, f"unknown key {key!r}; {closest(key, SERVER_KEYS)}")
            return None
        if not known.many:
            return self._parsed(known.kind, value, "server", key)
        given = value if isinstance(value, list) else [value]
        parsed = [self._parsed(known.kind, one, "server", key) for one in given]
        return tuple(one for one in parsed if one is not None)

    def _parsed(self, kind: Kind[Any], value: Any, table: str, key: str) -> Any:
        try:
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"a {kind.name}")  # noqa: TRY301, TRY004 -- told like any other
            return kind.parse(value)
        except ValueError as exc:
            self._wrong(table, key, f"{shown(value)} will not do: {exc}")
            return None

    # The export tables

    def _exports(self, tables: Any) -> list[ExportSpec]:
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self._wrong("export", None, "is a list of tables: write [[export]]")
            return []
        found: dict[str, ExportSpec] = {}
        for number, table in enumerate(tables, 1):
            name = table.get("name", "")
            label = f"export {name!r}" if isinstance(name, str) and name else f"export {number}"
            spec = self.export(table, label)
            if spec is None:
                continue
            if spec.name in found:
                self._wrong(label, "name", "another export has this name")
            found[spec.name] = spec
        return list(found.values())

    def export(self, table: Mapping[str, Any], label: str) -> ExportSpec | None:
        """Read one export; None if it has errors."""
        before = len(self.errors)
        for key in table:
            if key not in _EXPORT_KEYS:
                self._wrong(label, None, f"unknown key {key!r}; {closest(key, _EXPORT_KEYS)}")
        layers = table.get("layers", [])
        if not isinstance(layers, list):
            self._wrong(label, "layers", 'is a list, e.g. ["cow", "xz"]')
            layers = []
        if "source" not in table:
            self._wrong(label, "source", 'is missing, e.g. { type = "file", path = "disk.img" }')
            return None
        source = self._element(table["source"], label, "source")
        elements = [self._element(layer, label, "layers") for layer in layers]
        name = self._parsed(WIRE_TEXT, table.get("name", ""), label, "name")
        description = self._parsed(WIRE_TEXT, table.get("description", ""), label, "description")
        read_only = self._parsed(BOOLEAN, table.get("read-only", False), label, "read-only")
        exclusive = self._parsed(BOOLEAN, table.get("exclusive", False), label, "exclusive")
        if len(self.errors) > before or source is None:
            return None
        wrapped = tuple(element for element in elements if element is not None)
        spec = ExportSpec(
            source, wrapped, name, description, bool(read_only), bool(exclusive), self._path
        )
        self._look_up(spec, label)
        return spec

    def _element(self, written: Any, label: str, key: str) -> ElementSpec | None:
        if isinstance(written, str):
            return ElementSpec(written)
        if not isinstance(written, dict) or not isinstance(written.get("type"), str):
            self._wrong(label, key, 'an element is "NAME" or { type = "NAME", key = value }')
            return None
        given: list[tuple[str, Value]] = []
        for name, value in written.items():
            if name == "type":
                continue
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, str | int | float | bool):
                    self._wrong(label, f"{key}.{name}", "is neither text, number nor list of them")
                    continue
                given.append((name, one))
        return ElementSpec(written["type"], tuple(given))

    def _look_up(self, spec: ExportSpec, label: str) -> None:
        alone: Sequence[ExportSpec] = [
            ExportSpec(spec.source, (), spec.name, file=self._path),
            *(ExportSpec(_ANY_SOURCE, (layer,), spec.name) for layer in spec.layers),
        ]
        for part in alone:  # each element by itself, so that every error is found
            try:
                resolve(part)
            except ConfigError as exc:
                self._wrong(label, exc.table, exc.message, exc.key)

    def _wrong(
        self, table: str | None, key: str | None, message: str, inner: str | None = None
    ) -> None:
        where = ": ".join(part for part in (key, inner) if part) or None
        self.errors.append(ConfigError(message, file=self._path, table=table, key=where))


_ANY_SOURCE = ElementSpec("null", (("size", 0),))
