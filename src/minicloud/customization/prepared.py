"""A customisation with its place found and its words chosen; all that can be wrong is known by now.

So `boot` can prepare before it makes anything, and apply when the guest's export is served.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from minicloud.cluster import Cluster
from minicloud.customization.command import Bundle, Command, bundle
from minicloud.customization.places import HERE, Place, place_here, place_there, placeless
from minicloud.customization.running import OnStep, run
from minicloud.customization.subscription import undone
from minicloud.customization.tool import PROGRAM, Appliance, adapted, argv, nbd_uri
from minicloud.customization.wrapper import Ran
from minicloud.domain.plan import TcpServer, UnixServer
from minicloud.errors import MinicloudError, NodeError, Reason, UsageError
from minicloud.model.inventory import Node
from minicloud.model.outcome import Row

__all__ = ["Applied", "Prepared", "prepare"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of it.

    Attributes:
        place: where it ran.
        ran: what virt-customize did.
        undone: likewise of the run that gave a subscription back after that failed, or None.
    """

    place: str
    ran: Ran
    undone: Ran | None = None

    @property
    def output(self) -> tuple[str, ...]:
        """Lines for the operator: a random password, what could not be done and did not matter."""
        return (*self.ran.output, *(self.ran.errors if self.ran.status == 0 else ()))

    @property
    def failure(self) -> NodeError | None:
        """Why the disk is not what it should be, if so."""
        if self.ran.status == 0:
            return None
        told = [line for line in self.ran.errors if line.startswith(f"{PROGRAM}: error: ")]
        why = (told or list(self.ran.errors) or ["it said nothing"])[-1]
        text = f"{PROGRAM} on {self.place} ended with status {self.ran.status}: "
        text += why.removeprefix(f"{PROGRAM}: error: ")
        if self.undone is not None and self.undone.status == 0:
            text += "; the guest's subscription was given back"
        elif self.undone is not None:
            text += "; the guest may still be registered, giving its subscription back failed too"
        return NodeError(Reason.COMMAND, text, "what it had done before stays on the disk")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A customisation that is ready to be applied.

    Attributes:
        place: where it is to run.
        commands: in the words of virt-customize there.
        rest: what is to be done if they fail.
        appliance: in which it works.
        server: of the exports.
    """

    place: Place
    commands: tuple[Command, ...]
    rest: tuple[Command, ...]
    appliance: Appliance
    server: TcpServer | UnixServer

    def argv(self, export: str) -> list[str]:
        """Return the command line for an export."""
        return argv(nbd_uri(self.server, export), self.appliance)

    def bundle(self) -> Bundle:
        """Return what it is fed."""
        return bundle(self.commands)

    async def apply(self, export: str, on_step: OnStep) -> Applied:
        """Change the disk. Nobody else may use the export meanwhile; cancelled, it ends at once.

        Args:
            export: of the disk.
            on_step: told what is being done.

        Raises:
            NodeError: virt-customize could not be run; a run that failed is in what is returned.
        """
        try:
            ran = await run(self.place, self.argv(export), self.bundle(), on_step)
        except (asyncio.CancelledError, MinicloudError):
            if self.rest:
                logger.error(  # noqa: TRY400 -- why it broke off is told by whoever catches it
                    "the guest may have been registered; minicloud customize %s --sm-unregister",
                    export,
                )
            raise
        for line in ran.errors:
            logger.info("%s: %s", export, line)
        if ran.status == 0 or not self.rest:
            return Applied(self.place.name, ran)
        on_step("giving the subscription back")
        again = await run(self.place, self.argv(export), bundle(self.rest), on_step)
        return Applied(self.place.name, ran, again)


async def prepare(
    cluster: Cluster,
    commands: Sequence[Command],
    appliance: Appliance,
    server: TcpServer | UnixServer,
    *,
    nodes: Sequence[Node] | None = None,
) -> Prepared:
    """Find where it can be done, this machine first, and how it is said there.

    Args:
        cluster: with the nodes.
        commands: what is to be done.
        appliance: in which virt-customize works.
        server: of the exports.
        nodes: to choose among, and not this machine; None is this machine, then all nodes.

    Raises:
        NodeError: it can be done nowhere; says why of each machine.
        UsageError: it cannot be written down, or the exports are of a kind libguestfs cannot use.
    """
    if isinstance(server, TcpServer) and server.tls:
        raise UsageError(
            "libguestfs cannot use exports over TLS; serve them on a Unix socket as well and run "
            "virt-customize there, or use --cloud-init"
        )
    bundle(commands)
    rows: list[Row[Prepared]] = []

    def ready(place: Place) -> Prepared:
        words = adapted(commands, place.tool)
        return Prepared(place, words, undone(commands), appliance, server)

    async def there(node: Node) -> Prepared:
        return ready(await place_there(await cluster.session(node.name), server))

    if nodes is None:
        try:
            return ready(await place_here(server))
        except NodeError as exc:
            rows.append(Row(HERE, error=exc))
        nodes = cluster.nodes()
    rows += await cluster.gather(there, nodes)
    for row in rows:
        if row.value is not None:
            return row.value
    raise placeless(rows)
