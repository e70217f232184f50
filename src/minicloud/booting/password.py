"""root's password, by a selector as virt-customize has them; only its hash goes on from here.

A password in the command line is seen by whoever may list this machine's processes, and stays in
the shell's history. So it comes from a file, or from standard input as `file:-`.
"""

import sys
from pathlib import Path
from typing import Final

from minicloud.errors import UsageError
from minicloud.passwords import hash_password, new_salt

__all__ = ["password_hash"]

_SELECTORS: Final = "write file:FILE, or file:- for standard input"


def password_hash(selector: str, *, may_be_seen: bool = False) -> str:
    """Return the hash of the password that a selector leads to.

    Args:
        selector: `file:FILE`, whose first line it is, or `password:TEXT`.
        may_be_seen: the operator has said that TEXT may stand in the command line.

    Raises:
        UsageError: it is no selector, there is no such file, or TEXT was not allowed.
    """
    kind, _, value = selector.partition(":")
    if kind == "file" and value:
        password = _first_line(value)
    elif kind == "password" and value:
        if not may_be_seen:
            raise UsageError(
                "a password on the command line is seen by everybody on this machine (ps) and kept "
                f"in the shell's history; {_SELECTORS}, or add --allow-insecure-secret"
            )
        password = value
    else:
        # not said again: it may be the password itself
        raise UsageError(f"--root-password leads to no password; {_SELECTORS}")
    if not password:
        raise UsageError("the password is empty; its file holds it in the first line")
    return hash_password(password, new_salt())


def _first_line(name: str) -> str:
    if name == "-":
        return sys.stdin.readline().rstrip("\n")
    path = Path(name).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")
    except UnicodeDecodeError:
        raise UsageError(f"the password in {path} is no text in UTF-8") from None
    except OSError as exc:
        raise UsageError(f"cannot read the password from {path}: {exc.strerror}") from None
