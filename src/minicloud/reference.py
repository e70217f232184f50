"""minicloud's reference pages, written out of the code: `python -m minicloud.reference FOLDER`.

They lie beside those of `nbdserve.reference`, which leaves alone what begins with `minicloud`.
`--check` writes nothing and fails if a page is not what the code says.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from minicloud.cli import COMMANDS, parser
from minicloud.inventory.customize import OPTIONS, Form
from minicloud.inventory.keys import (
    DEFAULTS_KEYS,
    NBD_KEYS,
    NODE_KEYS,
    SSH_KEYS,
    TEMPLATE_KEYS,
    Key,
)
from minicloud.inventory.scripts import QUESTIONS
from nbdserve.reference import options_table, usage_block

__all__ = ["main", "pages"]

_NOTE: Final = (
    "<!-- Written by `make docs` out of the code; change the code, not this page. -->\n\n"
)
_EXIT: Final = """\
## Exit status

| status | meaning |
|---|---|
| 0 | all was done, all answered |
| 1 | a part |
| 2 | nothing; or what was written is wrong: usage, the inventory |
| 130, 143, 129 | it was ended (SIGINT, SIGTERM, SIGHUP), after it had undone what it had begun |

"""
_KEYS: Final = "| key | value | meaning |\n|---|---|---|\n"
_FORMS: Final = {
    Form.NOTHING: "",
    Form.TEXT: "…",
    Form.FILE: "FILE",
    Form.FILE_TO: "FILE:WHERE",
    Form.SECRET: "SELECTOR",
    Form.USER_SECRET: "USER:SELECTOR",
    Form.CREDENTIALS: "USER:file:FILE",
    Form.KEY: "USER[:file:FILE\\|:string:KEY]",
    Form.POOL: "auto\\|pool:ID\\|file:FILE",
}


def pages() -> dict[str, str]:
    """Write every page; returns file name to contents."""
    return {
        "minicloud.md": _NOTE + _command(),
        "minicloud-inventory.md": _NOTE + _inventory(),
    }


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(_run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    arguments = argparse.ArgumentParser(prog="python -m minicloud.reference")
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("folder", type=Path)
    given = arguments.parse_args(argv)
    wanted = pages()
    present = {path.name: path.read_text() for path in given.folder.glob("minicloud*.md")}
    stale = sorted(name for name in {*wanted, *present} if wanted.get(name) != present.get(name))
    if given.check:
        if stale:
            text = f"not what the code says: {', '.join(stale)}; run make docs"
            sys.stderr.write(f"reference: {text}\n")
        return 2 if stale else 0
    for name in stale:
        if name in wanted:
            (given.folder / name).write_text(wanted[name])
        else:
            (given.folder / name).unlink()
    return 0


def _command() -> str:
    made = parser(*COMMANDS)
    # no public way lists the parsers of subcommands
    (parts,) = (a for a in made._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    text = f"# minicloud\n\n{made.description}\n\n{usage_block(made)}{options_table(made)}{_EXIT}"
    for name, part in parts.choices.items():
        text += f"## minicloud {name}\n\n{part.description}\n\n{usage_block(part)}"
        text += _arguments(part) + options_table(part)
    return text.rstrip() + "\n"


def _arguments(made: argparse.ArgumentParser) -> str:
    rows = [
        f"| `{_shown(action)}` | {action.help} |\n"
        for action in made._get_positional_actions()  # noqa: SLF001 -- no public way lists them
    ]
    return f"| argument | meaning |\n|---|---|\n{''.join(rows)}\n" if rows else ""


def _shown(action: argparse.Action) -> str:
    return str(action.metavar or "\\|".join(action.choices or (action.dest,)))


def _inventory() -> str:
    return (
        "# minicloud's inventory\n\n"
        "TOML: the file of `--config`, else of MINICLOUD_CONFIG, else `minicloud/minicloud.toml` "
        "in the user's configuration folder. A whole one is in "
        "[how to write an inventory](../how-to/write-an-inventory.md).\n\n"
        "Sizes take K, M, G and T for powers of 1024. A relative path is relative to the file, and "
        "`~/` is one's own folder. A key may be written with `_` for `-`. Names of nodes and "
        "templates are letters, digits and, inside, `.` `_` `-`.\n\n"
        f"## [nodes.NAME]\n\n{_table(NODE_KEYS)}\n"
        f"## [nbd]\n\nWhere the exports are served from.\n\n{_table(NBD_KEYS)}\n"
        f"The keys of a table `[nbd.ssh]` are {_list(SSH_KEYS)}; `host` is required.\n\n"
        f"## [defaults]\n\nWhat a template does not say.\n\n{_table(DEFAULTS_KEYS)}\n"
        f"## [templates.NAME]\n\n{_table(TEMPLATE_KEYS)}\n"
        "A layer is written as for `nbdserve --layer`, e.g. `cache:size=64M`; the guest's own "
        "copy-on-write layer comes on top of them.\n\n"
        f"## customize\n\n{_customize()}\n"
        f"## Executable templates\n\n{_scripts()}"
    )


def _table(keys: Mapping[str, Key]) -> str:
    rows = []
    for name, key in keys.items():
        value = key.kind.name.replace("|", "\\|")
        many = "; may be a list" if key.many else ""
        rows.append(f"| `{name}` | {value} | {key.help}{many} |\n")
    return _KEYS + "".join(rows)


def _list(words: Mapping[str, object]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _customize() -> str:
    rows = [f"| `{word}` | {_FORMS[form]} |\n" for word, form in OPTIONS.items()]
    return (
        "Each is an option of virt-customize and its value, as a line of its "
        "`--commands-from-file`; they are applied in order, before the first start. A SELECTOR is "
        "`file:FILE`, `random`, `disabled`, `locked` or `locked:file:FILE`: a password stands in a "
        "file, never here.\n\n"
        "| option | value |\n|---|---|\n" + "".join(rows)
    )


def _scripts() -> str:
    rows = [f"| `{question}` | `{key}` |\n" for question, key in QUESTIONS.items()]
    return (
        "A program `NAME.template` in the folder `templates` beside the inventory, or in a folder "
        "of MINICLOUD_PATH (separated by colons), is a template too. It is called with one word, "
        "prints the answer and ends with status 0; or ends with status 2 for a word it does not "
        "know. `probe` is asked first and answered `hello`. Lists are printed one a line. Relative "
        "paths are relative to its own folder. A table of the inventory counts before a program of "
        "the same name.\n\n"
        "| word | key of [templates.NAME] |\n|---|---|\n" + "".join(rows)
    )


if __name__ == "__main__":
    main()
