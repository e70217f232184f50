"""The options of `minicloud customize`: virt-customize's own, in the order they are written."""

import argparse
from collections.abc import Mapping
from typing import Final

from minicloud.inventory.customize import OPTIONS, Form

__all__ = ["add_arguments"]

_SELECTORS: Final = (
    "file:FILE (its first line; - is standard input), random, disabled, locked or locked:file:FILE"
)

# What follows a word, and what comes of it; of guestfs-tools' customize-options.pod.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "append-line": ("FILE:LINE", "append a line to a file"),
    "chmod": ("PERMISSIONS:FILE", "octal with a 0 in front"),
    "chown": ("UID:GID:PATH", "by numbers"),
    "commands-from-file": ("FILE", "options one a line, without the hyphens"),
    "copy": ("SOURCE:DEST", "copy within the disk"),
    "copy-in": ("PATH:DIR", "copy files or folders of this machine into a folder"),
    "delete": ("PATH", "a file or a folder with all that is in it"),
    "edit": ("FILE:EXPR", "by a Perl expression, applied to each line"),
    "firstboot": ("FILE", "run it when the guest starts for the first time"),
    "firstboot-command": ("COMMAND", "likewise"),
    "firstboot-install": ("PKG,PKG…", "install packages then"),
    "hostname": ("NAME", "set the host name"),
    "install": ("PKG,PKG…", "install packages, by the guest's own package manager"),
    "link": ("TARGET:LINK[:LINK…]", "make symbolic links"),
    "mkdir": ("DIR", "make a folder"),
    "move": ("SOURCE:DEST", "move within the disk"),
    "no-logfile": ("", "remove the log of all this from the disk"),
    "no-selinux-relabel": ("", "leave SELinux's labels as they come out"),
    "password": (
        "USER:SELECTOR",
        f"a user's; SELECTOR is {_SELECTORS}",
    ),
    "password-crypto": ("KIND", "md5, sha256, sha512 or yescrypt"),
    "root-password": ("SELECTOR", "root's, likewise"),
    "run": ("FILE", "run a script of this machine in the disk"),
    "run-command": ("COMMAND", "run a command in the disk"),
    "scrub": ("PATH", "overwrite a file and delete it"),
    "sm-attach": ("auto|pool:ID|file:FILE", "attach to a subscription"),
    "sm-credentials": ("USER:file:FILE", "what to register with, by subscription-manager"),
    "sm-register": ("", "register"),
    "sm-unregister": ("", "give the subscription back, even if something before fails"),
    "ssh-inject": (
        "USER[:file:FILE|:string:KEY]",
        "a public key that may log in as USER (default one's own newest)",
    ),
    "tar-in": ("FILE:DIR", "unpack a tar archive into a folder"),
    "timezone": ("ZONE", "e.g. Europe/London"),
    "touch": ("PATH", "make an empty file, or set its time"),
    "truncate": ("PATH", "empty a file"),
    "truncate-recursive": ("DIR", "empty all files beneath a folder"),
    "uninstall": ("PKG,PKG…", "remove packages"),
    "update": ("", "update all packages"),
    "upload": ("FILE:DEST", "copy a file of this machine, with its permissions"),
    "write": ("FILE:CONTENT", "write a file"),
}


class _InOrder(argparse.Action):
    """Keeps options in the order they stand in the command line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        value = values if isinstance(values, str) else ""
        namespace.options = [*namespace.options, (self.dest, value)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `customize` alone takes; `options` becomes a list of words and values."""
    add = parser.add_argument
    add("target", metavar="GUEST", help="a guest that is off, or the name of an export")
    add("--no-network", action="store_true", help="what runs in the disk has no network")
    add("--memsize", type=int, metavar="MIB", help="memory of the machine it is done in")
    add("--smp", type=int, metavar="N", help="processors of that machine")
    add(
        "--allow-insecure-secret", action="store_true",
        help="let a password stand in the command line (password:TEXT), where all users see it",
    )  # fmt: skip
    parser.set_defaults(options=[])
    group = parser.add_argument_group("what is done, in this order; see virt-customize(1)")
    for word, form in OPTIONS.items():
        metavar, text = _WORDS[word]
        group.add_argument(
            f"--{word}", dest=word, action=_InOrder, metavar=metavar or None, help=text,
            nargs=0 if form is Form.NOTHING else None, default=argparse.SUPPRESS,
        )  # fmt: skip
