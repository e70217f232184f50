"""The options of `minicloud boot`, and what they ask for. Files are read here; no node is asked."""

import argparse
import uuid as uuids
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from minicloud.booting.cloudseed import Wishes, cloud_seed
from minicloud.booting.password import password_hash
from minicloud.booting.request import Request, Wait, check_request, parse_wait
from minicloud.commands.values import typed
from minicloud.domain.names import split_target
from minicloud.inventory.scripts import template
from minicloud.model.guest import GuestKind
from minicloud.model.inventory import Inventory
from nbdserve.params import SIZE

__all__ = ["Asked", "add_arguments", "read_options"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for.

    Attributes:
        request: the guest.
        node: it is to be on; None leaves that to placement.
        uuid: its new one.
        seed: image of its cloud-init seed, or None.
        wait: for it, or None.
        explain: show how the node was chosen.
    """

    request: Request
    node: str | None
    uuid: str
    seed: bytes | None
    wait: Wait | None
    explain: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `boot` alone takes."""
    add = parser.add_argument
    add("template", metavar="TEMPLATE", help="what the guest is made of; see minicloud image list")
    add("target", metavar="[NODE:]NAME", help="its name, and its node if it is not to be chosen")
    add("--size", type=typed(SIZE.parse), help="of its disk, e.g. 20G; the image is grown to it")
    add("--memory", type=typed(SIZE.parse), metavar="SIZE", help="e.g. 2G")
    add("--vcpus", type=int, metavar="N")
    add("--network", metavar="NETWORK", help="network:NAME, bridge:NAME, user or none")
    add(
        "--tag", action="append", default=[], metavar="TAG",
        help="choose among the nodes that have it; may be repeated",
    )  # fmt: skip
    add("--pet", action="store_true", help="kept and started with its node, until it is destroyed")
    add(
        "--wait", nargs="?", const="ssh", type=typed(parse_wait), metavar="FOR",
        help="until it is up: ssh (without a value too), console (it said a line), console:TEXT "
        "(a line with TEXT), or a time for ssh (default 5m); written with =, as --wait=console",
    )  # fmt: skip
    add("--cloud-init", type=Path, metavar="FILE", help="user-data, instead of the template's")
    add(
        "--ssh-key", type=Path, action="append", default=[], metavar="FILE",
        help="public keys that may log in; may be repeated",
    )  # fmt: skip
    add("--hostname", metavar="NAME", help="what it calls itself (default its name)")
    add(
        "--root-password", metavar="SELECTOR",
        help="file:FILE, its first line; file:- for standard input. Only its hash leaves here",
    )  # fmt: skip
    add(
        "--allow-insecure-secret", action="store_true",
        help="let a password stand in the command line (password:TEXT), where all users see it",
    )  # fmt: skip
    add("--explain", action="store_true", help="show how its node was chosen")


async def read_options(inventory: Inventory, given: argparse.Namespace) -> Asked:
    """Read them.

    Raises:
        UsageError: something cannot be, or a file cannot be read.
    """
    node, name = split_target(given.target, inventory.nodes)
    chosen = await template(inventory, given.template)
    request = Request(
        template=chosen,
        name=name,
        kind=GuestKind.PET if given.pet else GuestKind.CATTLE,
        size=given.size,
        memory=_or(given.memory, chosen.memory),
        vcpus=_or(given.vcpus, chosen.vcpus),
        network=_or(given.network, chosen.network),
        tags=tuple(given.tag),
        hostname=_or(given.hostname, name),
    )
    password = None
    if given.root_password is not None:
        password = password_hash(given.root_password, may_be_seen=given.allow_insecure_secret)
    wishes = Wishes(
        user_data=given.cloud_init,
        key_files=given.ssh_key,
        root_password=password,
        hostname=given.hostname,
    )
    uuid = str(uuids.uuid4())
    return Asked(
        request=check_request(request),
        node=node,
        uuid=uuid,
        seed=cloud_seed(wishes, chosen.user_data, name=name, uuid=uuid),
        wait=given.wait,
        explain=given.explain,
    )


def _or(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
