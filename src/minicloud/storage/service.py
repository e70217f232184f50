"""The server of the guests' disks, as commands use it.

It is one nbdserve for all nodes, on this machine or one that ssh leads to; or, where guests reach
their disks by a socket of their own node, one on each: `at` gives the one that is meant.
"""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from minicloud.errors import StorageError
from minicloud.model.inventory import NbdService, Node
from minicloud.storage.exchange import Dial, Told, dial_local, exchange
from minicloud.storage.facts import ExportFacts, OverlayFacts, parse_export, parse_overlay

__all__ = ["Storage"]

_OPENING: Final = 300.0  # seconds to add an export: a far image may have to be fetched in part
_WARMING: Final = 86400.0


class Storage:
    """The control of nbdserve; connects when something is asked of it.

    Args:
        nbd: the `[nbd]` table; None where the inventory has none, and every request then fails.
        dial: leads to the machine it names.
        dial_node: leads to a node, for where each has its own.
        where: how the machine is called in messages.
        patience: seconds a request may take; opening an image and warming may take longer.
    """

    def __init__(
        self,
        nbd: NbdService | None,
        *,
        dial: Dial = dial_local,
        dial_node: Callable[[Node], Dial] | None = None,
        where: str = "this machine",
        patience: float = 30.0,
    ) -> None:
        self.nbd = nbd
        self._dial = dial
        self._dial_node = dial_node
        self._where = where
        self._patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held between requests."""

    @property
    def is_per_node(self) -> bool:
        """Whether each node has an nbdserve of its own."""
        return self.nbd is not None and self.nbd.socket is not None

    def at(self, node: Node) -> "Storage":
        """Return the server that the guests of a node use."""
        if not self.is_per_node:
            return self
        assert self._dial_node is not None, "whoever makes this for such an inventory gives it"
        return Storage(
            self.nbd, dial=self._dial_node(node), where=node.name, patience=self._patience
        )

    async def exports(self) -> list[ExportFacts]:
        """List all exports, those of the configuration too."""
        told = await self._ask("export.list")
        return [parse_export(one) for one in _rows(told, "exports")]

    async def add(self, table: Mapping[str, Any]) -> None:
        """Serve an [[export]] table from now on; a failure leaves nothing behind.

        Raises:
            StorageError: `exists`, `device` (its image cannot be opened), `argument`, ….
        """
        await self._ask("export.add", {"export": dict(table)}, at_least=_OPENING)

    async def remove(self, name: str, *, force: bool = False, discard: bool = False) -> None:
        """Serve an export no more.

        Args:
            name: of an export that was added.
            force: even though it is in use; drops its clients.
            discard: delete its overlay too.
        """
        given = {"export": name, "force": force, **({"discard": True} if discard else {})}
        await self._ask("export.remove", given)

    async def hand_over(self, name: str, *, seconds: float) -> None:
        """Let a second client connect to an exclusive export for a time."""
        await self._ask("export.handover", {"export": name, "seconds": seconds})

    async def end_handover(self, name: str) -> None:
        """End that, and drop the client that may not write; no error if none runs."""
        await self._ask("export.handover-end", {"export": name})

    async def disconnect(self, name: str) -> int:
        """Drop the clients of an export; return how many there were."""
        told = await self._ask("export.disconnect", {"export": name})
        return int(told["count"])

    async def overlays(self) -> list[OverlayFacts]:
        """List the files in which guests' writes are kept, used or not."""
        told = await self._ask("overlay.list")
        return [parse_overlay(one) for one in _rows(told, "overlays")]

    async def delete_overlay(self, name: str) -> None:
        """Delete one that no export uses.

        Args:
            name: of the file, or its whole path.
        """
        await self._ask("overlay.delete", {"path": name})

    async def status(self) -> Mapping[str, Any]:
        """Return all nbdserve says of itself, as `nbdctl status --json` does."""
        return await self._ask("status")

    async def warm(self, name: str, *, length: int | None = None, on_progress: Told) -> None:
        """Make the first bytes of an export fast to read."""
        given = {"export": name, **({} if length is None else {"length": length})}
        await self._ask("warm", given, at_least=_WARMING, on_progress=on_progress)

    async def _ask(
        self,
        command: str,
        given: Mapping[str, Any] | None = None,
        *,
        at_least: float = 0.0,
        on_progress: Told = lambda _: None,
    ) -> Mapping[str, Any]:
        if self.nbd is None:
            raise StorageError(
                "argument", "the inventory has no [nbd] table; say there where nbdserve runs"
            )
        seconds = max(self._patience, at_least)
        try:
            async with asyncio.timeout(seconds):
                return await exchange(
                    self._dial,
                    self.nbd.control,
                    command,
                    given or {},
                    where=self._where,
                    on_progress=on_progress,
                )
        except TimeoutError:
            raise StorageError(
                "unreachable",
                f"nbdserve on {self._where} did not answer {command} in {seconds:g} s; see its log",
            ) from None


def _rows(told: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = told.get(key)
    if not isinstance(rows, list):
        raise StorageError("version", f"nbdserve tells no {key}; run the version minicloud has")
    return rows
