"""The inventory, found and read: TOML to values, with every error told at once.

    [nodes.ham0]
    host = "ham0.lan"
    mac = "74:d4:35:51:ab:86"
    reserve = "1G"

    [nbd]
    address = "10.0.0.1"

    [templates.debian]
    image = "https://example.com/debian-12.raw.xz"
    sha512 = "…"

Every error names file, table and key. Nothing is looked for but the file itself: whether a key or
an image is there is told where it is used. Layers are looked up by their names alone: to import
one that declares its parameters takes longer than `minicloud status` may; they are checked where a
template is used.
"""

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from minicloud.errors import UsageError
from minicloud.inventory.keys import DEFAULTS_KEYS, NBD_KEYS, NODE_KEYS, SSH_KEYS, TEMPLATE_KEYS
from minicloud.inventory.kinds import NAME, TARGET
from minicloud.inventory.places import find_inventory, located
from minicloud.inventory.tables import TableReader
from minicloud.inventory.templates import build_template, has_images_here
from minicloud.model.inventory import Defaults, Inventory, NbdService, Node, Template
from nbdserve.params import closest

__all__ = ["InventoryError", "find_inventory", "read_inventory", "warnings_of"]

log = logging.getLogger(__name__)

_TABLES: Final = ("nodes", "nbd", "defaults", "templates")
_LOCAL: Final = "localhost"  # a Unix socket has no address; this one is never asked for


class InventoryError(UsageError):
    """An inventory has errors; its text is the first and how many more there are.

    Args:
        errors: all of them, in the order of the file; at least one.
    """

    def __init__(self, errors: list[UsageError]) -> None:
        self.errors = tuple(errors)
        first, more = errors[0], len(errors) - 1
        text = f"{first.message} (and {more} more)" if more else first.message
        super().__init__(text, file=first.file, table=first.table, key=first.key)


def read_inventory(path: Path, *, ssh_config: Path | None = None) -> Inventory:
    """Read an inventory; what looks wrong but can be used is logged.

    Args:
        path: the file.
        ssh_config: the ssh_config to honour; None is the user's own.

    Raises:
        InventoryError: it has errors.
        UsageError: it cannot be read.
    """
    tree = _parse(path)
    reader = _InventoryReader(path)
    inventory = reader.read(tree)
    if reader.errors:
        raise InventoryError(reader.errors)
    for warning in warnings_of(inventory):
        log.warning("%s: %s", path, warning)
    return replace(inventory, ssh_config=ssh_config)


def warnings_of(inventory: Inventory) -> list[str]:
    """Say what can be used, but is hardly meant."""
    found: list[str] = []
    hosts: dict[tuple[str, int | None, str | None], str] = {}
    cards: dict[str, str] = {}
    for node in inventory.nodes.values():
        daemon = (node.host.lower(), node.port, node.libvirt_socket)
        other = hosts.setdefault(daemon, node.name)
        if other != node.name:
            found.append(f"nodes {other} and {node.name} are one host, {node.host}")
        if node.mac is not None and (other := cards.setdefault(node.mac, node.name)) != node.name:
            found.append(f"nodes {other} and {node.name} have one MAC address, {node.mac}")
    return found


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("there is no such inventory", file=path) from None
    except OSError as exc:
        raise UsageError(f"cannot be read: {exc.strerror}", file=path) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"not valid TOML: {exc}", file=path) from exc


class _InventoryReader(TableReader):
    """Reads one file; `errors` fills up meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        self._folder = path.absolute().parent

    def read(self, tree: Mapping[str, Any]) -> Inventory:
        for key in tree:
            if key not in _TABLES:
                self.wrong(None, None, f"unknown table {key!r}; {closest(key, _TABLES)}")
        nodes = {
            name: Node(name=name, **{"host": name, **self._login(values)})
            for name, values in self._named(tree, "nodes", NODE_KEYS).items()
        }
        nbd = self._nbd(tree["nbd"], nodes) if "nbd" in tree else None
        defaults = Defaults(**self.values(tree.get("defaults", {}), DEFAULTS_KEYS, "defaults"))
        templates = self._templates(tree, defaults, images_here=has_images_here(nbd))
        return Inventory(
            file=self._path, nodes=nodes, nbd=nbd, defaults=defaults, templates=templates
        )

    def _named(
        self, tree: Mapping[str, Any], kind: str, keys: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Read the tables `[KIND.NAME]`."""
        found = {}
        for name, table in self.table(tree.get(kind, {}), f"{kind}.NAME").items():
            label = f"{kind}.{name}"
            if self.parsed(NAME, name, label, None) is not None:
                found[name] = self.values(table, keys, label)
        return found

    def _login(self, values: dict[str, Any]) -> dict[str, Any]:
        if "key" in values:
            values["key"] = located(values["key"], self._folder)
        return values

    def _nbd(self, written: Any, nodes: Mapping[str, Node]) -> NbdService | None:
        table = dict(self.table(written, "nbd"))
        ssh = table.pop("ssh", None)
        values = self.values(table, NBD_KEYS, "nbd")
        if ssh is not None:
            values["ssh"] = self._server(ssh, nodes)
        if "address" not in table and "socket" not in table:
            self.wrong("nbd", "address", "is missing: where all nodes reach the exports")
        return NbdService(**{"address": _LOCAL, **values})

    def _server(self, written: Any, nodes: Mapping[str, Node]) -> Node | None:
        """Read what `[nbd] ssh` names: a node, a target of ssh, or a table."""
        if isinstance(written, dict):
            values = self._login(self.values(written, SSH_KEYS, "nbd.ssh"))
            if "host" not in written:
                self.wrong("nbd.ssh", "host", "is missing")
            host = values.get("host", "")
            return Node(name=host, **{"host": host, **values})
        target = self.parsed(TARGET, written, "nbd", "ssh")
        if target is None or target in nodes:
            return nodes.get(target or "")
        user, _, host = target.rpartition("@")
        if not host:
            self.wrong("nbd", "ssh", f"{target!r} will not do: no host in it")
        return Node(name=host, host=host, user=user or None)

    def _templates(
        self, tree: Mapping[str, Any], defaults: Defaults, *, images_here: bool
    ) -> dict[str, Template]:
        found = {}
        for name, values in self._named(tree, "templates", TEMPLATE_KEYS).items():
            made = build_template(
                name, values, defaults,
                reader=self, table=f"templates.{name}", folder=self._folder,
                images_here=images_here,
            )  # fmt: skip
            if made is not None:
                found[name] = made
        return found
