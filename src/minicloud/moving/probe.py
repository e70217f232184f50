"""What a node reaches and has, as it finds itself: one command there, whose output is read here.

A connection is tried by whichever of bash, python3 and nc the node has. Nothing is sent over it: an
NBD server sees a client that went away before it said a word, which is no error to it.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from minicloud.model.inventory import Node

__all__ = [
    "MIGRATION_PORT",
    "Address",
    "Probe",
    "Reach",
    "address_of",
    "parse_probe",
    "probe_command",
]

MIGRATION_PORT: Final = 49152  # the first of qemu.conf's migration_port_min to _max

Address = tuple[str, int]

_PYTHON: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
except OSError as exc:
    print(exc or "timed out")
    sys.exit(1)
"""

# bash's own messages are those of strerror, in the C locale; 124 is timeout(1)'s. A bash that was
# built without /dev/tcp, as Debian's once was, says that there is no such file.
_SCRIPT: Final = (
    "python='"
    + _PYTHON
    + """'
has() { command -v "$1" >/dev/null 2>&1; }
reach() {
  if has bash && has timeout; then
    said=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1); code=$?
    case $said in *'No such file'*) ;; *) return $code;; esac
  fi
  if has python3; then said=$(python3 -c "$python" "$1" "$2" 2>&1); return $?; fi
  if has nc; then said=$(nc -z -w 3 "$1" "$2" 2>&1); code=$?; : "${said:=refused}"; return $code; fi
  said='no tool'; return 3
}
LC_ALL=C; export LC_ALL
while [ $# -gt 0 ]; do
  case $1 in
    tcp) reach "$2" "$3"; echo "tcp $2 $3 $?" $said; shift 3;;
    bridge) [ -d "/sys/class/net/$2/bridge" ] && a=yes || a=no; echo "bridge $a $2"; shift 2;;
    file) [ -r "$2" ] && a=yes || a=no; echo "file $a $2"; shift 2;;
  esac
done
"""
)

_TIMED_OUT: Final = 124  # timeout(1)


class Reach(enum.StrEnum):
    """What became of a connection that was tried."""

    OPEN = "open"
    REFUSED = "refused"  # the host answers, nothing listens there
    NO_ROUTE = "no route"
    SILENT = "no answer"
    NO_NAME = "unknown name"
    UNKNOWN = "unknown"  # the node has no tool to try it with, or said something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a node found.

    Attributes:
        addresses: what became of each connection.
        bridges: whether there is a bridge of that name.
        files: whether it can be read, by path.
    """

    addresses: Mapping[Address, Reach] = field(default_factory=dict)
    bridges: Mapping[str, bool] = field(default_factory=dict)
    files: Mapping[str, bool] = field(default_factory=dict)


def address_of(node: Node) -> str:
    """Return what other nodes reach a node by."""
    return node.migrate_host or node.host


def probe_command(
    addresses: Sequence[Address] = (), bridges: Sequence[str] = (), files: Sequence[str] = ()
) -> list[str]:
    """Return the command that looks; it takes up to 3 s an address."""
    words: list[str] = []
    for host, port in addresses:
        words += ["tcp", host, str(port)]
    for name in bridges:
        words += ["bridge", name]
    for path in files:
        words += ["file", path]
    return ["sh", "-c", _SCRIPT, "sh", *words]


def parse_probe(text: str) -> Probe:
    """Read what `probe_command` printed; lines it did not print (a greeting) are passed over."""
    addresses: dict[Address, Reach] = {}
    bridges: dict[str, bool] = {}
    files: dict[str, bool] = {}
    for line in text.splitlines():
        match line.split(" "):
            case ["tcp", host, port, status, *said] if port.isdecimal() and status.isdecimal():
                addresses[host, int(port)] = _reach(int(status), " ".join(said))
            case ["bridge", answer, *name]:
                bridges[" ".join(name)] = answer == "yes"
            case ["file", answer, *path]:
                files[" ".join(path)] = answer == "yes"
    return Probe(addresses=addresses, bridges=bridges, files=files)


def _reach(status: int, said: str) -> Reach:
    if status == 0:
        return Reach.OPEN
    said = said.lower()
    for reach, words in _WORDS.items():
        if any(word in said for word in words):
            return reach
    return Reach.SILENT if status == _TIMED_OUT else Reach.UNKNOWN


_WORDS: Final[Mapping[Reach, tuple[str, ...]]] = {
    Reach.REFUSED: ("refused",),
    Reach.NO_ROUTE: ("no route", "unreachable"),
    Reach.SILENT: ("timed out",),
    Reach.NO_NAME: ("not known", "name resolution", "no address", "getaddrinfo"),
}
