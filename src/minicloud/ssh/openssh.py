"""OpenSSH's own ssh to a guest, jumping through its node: which words it is called with. Pure.

The jump follows the inventory as our own connections do: the node's host, user, port and key, the
ssh_config that was asked for, and minicloud's known hosts beside the user's. It is strict: the node
has just been logged in to, so its key is known.

Guests are known by their UUID, not by address or name: a new guest that has the old one's address
is a new host, while a known one that shows another key is refused as ever.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from minicloud.model.inventory import Node

__all__ = ["guest_argv", "jump_argv", "node_argv", "parse_known_hosts"]

_PLACE: Final = "[%h]:%p"  # where -W leads to


def node_argv(ssh: str, node: Node, ssh_config: Path | None) -> list[str]:
    """Make what names a node to ssh, without what to do there.

    Args:
        ssh: path of the program.
        node: of the inventory.
        ssh_config: instead of the user's own, or None.
    """
    argv = [ssh, *_config(ssh_config)]
    if node.user is not None:
        argv += ["-l", node.user]
    if node.port is not None:
        argv += ["-p", str(node.port)]
    if node.key is not None:
        argv += ["-i", str(node.key)]
    return argv


def parse_known_hosts(settings: str) -> str:
    """Find the user's known_hosts files in what `ssh -G` prints, as an option's value."""
    for line in settings.splitlines():
        key, _, value = line.partition(" ")
        if key == "userknownhostsfile":
            return value
    return ""


def jump_argv(to_node: Sequence[str], node: Node, *, ours: Path, users: str) -> list[str]:
    """Make the command that leads through a node; ssh fills in %h and %p.

    Args:
        to_node: of `node_argv`.
        node: the same.
        ours: minicloud's known_hosts.
        users: the user's, of `parse_known_hosts`.
    """
    argv = [
        *to_node,
        "-o", f"UserKnownHostsFile={_quoted(ours)} {users}".rstrip(),
        "-o", "StrictHostKeyChecking=yes",
        "-o", "ClearAllForwardings=yes",  # what ssh_config forwards is not this command's business
    ]  # fmt: skip
    # -W comes last: ClearAllForwardings does not clear it
    return [*argv, "-W", _PLACE, "--", node.host]


def guest_argv(
    ssh: str,
    jump: Sequence[str],
    *,
    address: str,
    uuid: str,
    known_hosts: Path,
    ssh_config: Path | None,
    user: str | None,
    options: Sequence[str] = (),
    wants_terminal: bool = False,
    command: Sequence[str] = (),
) -> list[str]:
    """Make the command that logs in to a guest.

    Args:
        ssh: path of the program.
        jump: of `jump_argv`.
        address: of the guest, as its node sees it.
        uuid: of the guest.
        known_hosts: file with guests' keys; new ones are added.
        ssh_config: instead of the user's own, or None.
        user: in the guest; None leaves it to ssh.
        options: further ones, each as after `-o`; they go before ours.
        wants_terminal: a command gets a terminal too.
        command: one word is a line for the guest's shell; several are a program and its arguments,
            which arrive there as they are here.
    """
    argv = [ssh, *_config(ssh_config)]
    for option in options:
        argv += ["-o", option]
    argv += [
        "-o", f"ProxyCommand={_proxy(jump)}",
        "-o", f"HostKeyAlias=minicloud-{uuid}",
        "-o", f"UserKnownHostsFile={_quoted(known_hosts)}",
        "-o", "StrictHostKeyChecking=accept-new",
        "-o", "HashKnownHosts=no",  # a UUID is no secret, and a line can be found by it
    ]  # fmt: skip
    if user is not None:
        argv += ["-l", user]
    if wants_terminal:
        argv.append("-t")
    line = [] if not command else [command[0] if len(command) == 1 else shlex.join(command)]
    return [*argv, "--", address, *line]


def _config(ssh_config: Path | None) -> list[str]:
    return [] if ssh_config is None else ["-F", str(ssh_config)]


def _proxy(jump: Sequence[str]) -> str:
    """Quote for the shell that runs it; of the percent signs only those of -W are ssh's to fill.

    The shell is the user's own, and brackets are a pattern to it: zsh refuses one nothing matches.
    """
    return " ".join(
        shlex.quote(word if word == _PLACE else word.replace("%", "%%")) for word in jump
    )


def _quoted(path: Path) -> str:
    """Quote a file's name inside an option's value, as ssh_config(5) splits it."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if any(char.isspace() for char in text) else text
