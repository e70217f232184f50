"""One thing that virt-customize is told to do, with the files it needs; and all of them as a file.

The file is that of `--commands-from-file`: a word, a blank and its argument on a line, in order
(guestfs-tools, generator/customize.ml and mlstdutils/std_utils.ml). Its parser trims nothing and
knows one escape: a backslash before the end of a line, which goes on. Pure.

Invariant: a secret is a file's content, never a part of the text: what is in the text may be shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minicloud.errors import UsageError

__all__ = ["Bundle", "Command", "Staged", "bundle"]


@dataclass(frozen=True, slots=True)
class Command:
    """A word of virt-customize and its argument.

    Attributes:
        word: one of `minicloud.inventory.customize.OPTIONS`, or another that virt-customize has.
        before: the argument, or what of it stands before a file's name.
        file: bytes that become a file only the user can read; or the path of one of the
            operator's; or None.
        after: what stands behind the file's name.
    """

    word: str
    before: str = ""
    file: bytes | Path | None = None
    after: str = ""


@dataclass(frozen=True, slots=True)
class Staged:
    """A file to be put beside the commands file.

    Attributes:
        name: path from there.
        file: its content, or where to take it from.
    """

    name: str
    file: bytes | Path


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that is carried to where virt-customize runs.

    Attributes:
        text: of the commands file.
        staged: what it names.
    """

    text: str
    staged: tuple[Staged, ...] = ()


def bundle(commands: Sequence[Command]) -> Bundle:
    """Write the commands file and name the files it needs.

    Raises:
        UsageError: an argument cannot be written.
    """
    lines: list[str] = []
    staged: list[Staged] = []
    for command in commands:
        argument = command.before
        if command.file is not None:
            name = _name(len(staged), command.file)
            staged.append(Staged(name, command.file))
            argument += name + command.after
        lines.append(_line(command.word, argument))
    return Bundle("".join(lines), tuple(staged))


def _name(number: int, file: bytes | Path) -> str:
    """Name a staged file; one of the operator's keeps its own, as it may be copied under it."""
    if isinstance(file, bytes):
        return f"secrets/{number}"
    return f"files/{number}/{file.name}"


def _line(word: str, argument: str) -> str:
    if argument.endswith("\\"):
        raise UsageError(
            f"--{word}: its value ends in a backslash, after which virt-customize reads on; "
            "put it into a script (--run) or a file (--upload)"
        )
    line = f"{word} {argument}" if argument else word
    return line.replace("\n", "\\\n") + "\n"
