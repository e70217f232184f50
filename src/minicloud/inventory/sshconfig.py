"""A first inventory out of an ssh_config: its hosts by name, and nothing that ssh knows anyway.

Users, ports, keys and jump hosts stay where they are: minicloud reads ssh_config at each run, so
that copies of them would only grow old. Read are Host and Include (ssh_config(5)); patterns name no
host, and what a Match decides is for ssh to decide.
"""

import shlex
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from minicloud.errors import UsageError
from minicloud.inventory.kinds import NAME
from minicloud.inventory.places import located
from nbdserve.params import closest

__all__ = ["hosts_of", "inventory_from_ssh_config"]

_DEEPEST: Final = 16  # Includes within Includes, as in OpenSSH
_USUAL: Final = Path("~/.ssh/config")
_HEAD: Final = """\
# The hosts of {file} that match {pattern}.
# User, port, key and jump host of each are read from there at every run; what is written here
# comes first. Wake-on-LAN needs the address of the card: mac = "aa:bb:cc:dd:ee:ff".
"""
_TAIL: Final = """
# Where nbdserve serves the guests' disks, under a name or an address that every node reaches.
# [nbd]
# address = "10.0.0.1"
# ssh = "{name}"  # where it runs, if not on this machine

# [templates.debian]
# image = "https://example.com/debian-12.raw.xz"
# sha512 = "…"
# memory = "2G"
"""


def inventory_from_ssh_config(pattern: str, file: Path | None) -> str:
    """Write a first inventory.

    Args:
        pattern: which hosts: a name in which * and ? stand for any letters or one.
        file: an ssh_config; None is the user's own.

    Returns:
        TOML, for the operator to go on with.

    Raises:
        UsageError: the file cannot be read, or no host matches.
    """
    path = _USUAL.expanduser() if file is None else file
    known = hosts_of(path)
    found = [host for host in known if fnmatchcase(host, pattern)]
    if not found:
        raise UsageError(f"no host in it matches {pattern!r}; {closest(pattern, known)}", file=path)
    shown = _USUAL if file is None else file
    nodes = [f"\n[nodes.{_key(host)}]\nhost = {_quoted(host)}\n" for host in found]
    head = _HEAD.format(file=shown, pattern=pattern)
    return head + "".join(nodes) + _TAIL.format(name=_name(found[0]))


def hosts_of(path: Path) -> list[str]:
    """List the hosts an ssh_config names, in its order.

    Raises:
        UsageError: it cannot be read.
    """
    return list(dict.fromkeys(_hosts(path, 0)))


def _hosts(path: Path, depth: int) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        raise UsageError(f"cannot be read: {exc.strerror}", file=path) from exc
    for line in lines:
        keyword, *words = _words(line) or ("",)
        if keyword == "host":
            yield from (word for word in words if not set(word) & set("*?!"))
        elif keyword == "include" and depth < _DEEPEST:
            for included in _included(words):
                yield from _hosts(included, depth + 1)


def _words(line: str) -> list[str]:
    """Split a line: the keyword in lower case, and its arguments; `Host=a` is `Host a`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.quotes = '"'
    try:
        words = list(lexer)
    except ValueError:  # a quote that does not end: ssh refuses the file, with a better message
        return []
    if not words:
        return []
    keyword, equals, rest = words[0].partition("=")
    words[:1] = [keyword.lower(), *([rest] if rest else [])]
    if not equals and words[1:] and words[1].startswith("="):
        words[1:2] = [words[1][1:]] if words[1] != "=" else []
    return words


def _included(words: Iterable[str]) -> Iterator[Path]:
    for word in words:
        path = located(word, _USUAL.expanduser().parent)  # wherever the file itself is
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        yield from sorted(file for file in found if file.is_file())


def _name(host: str) -> str:
    """Make a node's name of a host's: an address of IPv6 has colons, which a name has not."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in host)
    return name if name[0].isalnum() else f"node{name}"


def _key(host: str) -> str:
    name = NAME.parse(_name(host))
    return name if "." not in name else _quoted(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
