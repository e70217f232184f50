"""libvirt's sockets on a node, and why none of them can be used.

sshd says "open failed" for a missing socket, a forbidden one and forbidden forwarding alike, so
that when no socket opens, one command on the node looks for itself. What it prints is read here,
without I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from minicloud.errors import NodeError, Reason

__all__ = ["SocketFacts", "Sockets", "candidates", "helper_command", "inspection", "parse_sockets"]

# As libvirt's own client looks for them: the modular daemon first, then the one for all drivers.
_SYSTEM: Final = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")

# Listening is read from /proc/net/unix, where the flag 00010000 is SO_ACCEPTCON (proc(5)).
_SCRIPT: Final = r"""
for path; do
  here=no; may=no; listens=no
  [ -S "$path" ] && here=yes
  [ -r "$path" ] && [ -w "$path" ] && may=yes
  real=$(readlink -f "$path" 2>/dev/null || echo "$path")
  for name in "$path" "$real" "/var$path"; do
    grep -q " 00010000 .* $name\$" /proc/net/unix 2>/dev/null && listens=yes
  done
  echo "socket $here $may $listens $path"
done
for tool in virt-ssh-helper socat nc virsh; do
  command -v "$tool" >/dev/null 2>&1 && echo "tool $tool"
done
echo "user $(id -un)"
"""


@dataclass(frozen=True, slots=True)
class SocketFacts:
    """One socket as the node sees it.

    Attributes:
        path: of the socket.
        exists: whether it is there; one in a folder that may not be entered seems not to be.
        is_allowed: whether this user may read and write it.
        is_listening: whether a daemon has it.
    """

    path: str
    exists: bool
    is_allowed: bool
    is_listening: bool


@dataclass(frozen=True, slots=True)
class Sockets:
    """What a node says of libvirt's sockets.

    Attributes:
        sockets: in the order they are tried.
        tools: those of virt-ssh-helper, socat, nc and virsh that are there.
        user: who we are there.
    """

    sockets: tuple[SocketFacts, ...]
    tools: frozenset[str]
    user: str

    @property
    def usable(self) -> SocketFacts | None:
        """The first socket that this user can speak to, by whatever way."""
        return next((s for s in self.sockets if s.is_allowed and s.is_listening), None)

    def error(self) -> NodeError:
        """Say why no socket was opened through ssh, nor spoken to by a helper."""
        if usable := self.usable:
            return NodeError(
                Reason.NO_FORWARDING,
                f"sshd does not forward to {usable.path}, and there is no virt-ssh-helper",
                "AllowStreamLocalForwarding yes in sshd_config, or install socat there",
            )
        if listening := next((s for s in self.sockets if s.is_listening), None):
            return NodeError(
                Reason.LIBVIRT_PERMISSION,
                f"user {self.user} may not use {listening.path}",
                f"on the node: usermod -aG libvirt {self.user}",
            )
        if stale := next((s for s in self.sockets if s.exists), None):
            return _down(f"nothing listens at {stale.path}")
        return _down(f"there is no {' or '.join(s.path for s in self.sockets)}")


def candidates(configured: str | None) -> tuple[str, ...]:
    """Return the sockets to try, in order.

    Args:
        configured: the node's `libvirt_socket`.
    """
    return _SYSTEM if configured is None else (configured,)


def inspection(paths: Sequence[str]) -> list[str]:
    """Return the command that looks at sockets on a node; `parse_sockets` reads its output."""
    return ["sh", "-c", _SCRIPT, "sh", *paths]


def parse_sockets(text: str) -> Sockets:
    """Read what `inspection` printed; lines it did not print (a greeting) are passed over."""
    sockets: list[SocketFacts] = []
    tools: set[str] = set()
    user = ""
    for line in text.splitlines():
        match line.split(" "):
            case ["socket", here, may, listens, *path]:
                flags = (word == "yes" for word in (here, may, listens))
                sockets.append(SocketFacts(" ".join(path), *flags))
            case ["tool", name]:
                tools.add(name)
            case ["user", name]:
                user = name
    return Sockets(tuple(sockets), frozenset(tools), user)


def helper_command(facts: Sockets, uri: str, *, is_configured: bool) -> list[str] | None:
    """Return the command that joins its standard input and output to libvirt, if there is one.

    virt-ssh-helper finds the socket by itself and takes no other; that is left to socat and nc.

    Args:
        facts: of the node.
        uri: of the driver.
        is_configured: whether the operator named the socket.
    """
    usable = facts.usable
    if usable is None:
        return None
    if "virt-ssh-helper" in facts.tools and not is_configured:
        return ["virt-ssh-helper", uri]
    if "socat" in facts.tools:
        return ["socat", "-", f"UNIX-CONNECT:{usable.path}"]
    if "nc" in facts.tools:
        return ["nc", "-U", usable.path]
    return None


def _down(why: str) -> NodeError:
    return NodeError(
        Reason.NO_LIBVIRTD,
        f"libvirtd is not running: {why}",
        "on the node: systemctl enable --now libvirtd (or virtqemud.socket)",
    )
