"""The reference pages, written out of the code: `python -m nbdserve.reference [--check] FOLDER`.

One page a command, one for the configuration, one for each source and layer that comes with
nbdserve. `--check` writes nothing and fails if a page is not what the code says. Pages that begin
with `minicloud` are those of `minicloud.reference`, which is not imported here.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nbdserve.cli import parser as nbdserve_parser
from nbdserve.cli import run_command
from nbdserve.config import SERVER_KEYS
from nbdserve.device import Device
from nbdserve.errors import ConfigError
from nbdserve.helppages import default_text
from nbdserve.nbdctl import parser as nbdctl_parser
from nbdserve.params import params_of
from nbdserve.registry import builtin_layers, builtin_sources, find_layer, find_source

__all__ = ["main", "options_table", "pages", "usage_block"]

_NOTE = "<!-- Written by `make docs` out of the code; change the code, not this page. -->\n\n"
_OTHERS = "minicloud"
_EXIT = """\
## Exit status

| status | meaning |
|---|---|
| 0 | ended as asked (SIGTERM and SIGINT included) |
| 1 | the world did not comply: no such file, no permission, 404, port taken, damaged image |
| 2 | what was written is wrong: usage, an unknown element or key, a bad value or configuration |
| with `--run` | the command's own; 128 + the signal that ended it |

"""


def pages() -> dict[str, str]:
    """Write every page; returns file name to contents."""
    found = {
        "README.md": _index(),
        "nbdserve.md": _command("nbdserve", nbdserve_parser()) + _EXIT.rstrip() + "\n",
        "nbdctl.md": _nbdctl(),
        "configuration.md": _configuration(),
    }
    for name in builtin_sources():
        found[f"source-{name}.md"] = _element("source", name, find_source(name))
    for name in builtin_layers():
        found[f"layer-{name}.md"] = _element("layer", name, find_layer(name))
    return {name: _NOTE + text for name, text in found.items()}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run_command("reference", lambda: _run(sys.argv[1:] if argv is None else argv)))


def _run(argv: Sequence[str]) -> int:
    arguments = argparse.ArgumentParser(prog="python -m nbdserve.reference")
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("folder", type=Path)
    given = arguments.parse_args(argv)
    wanted = pages()
    present = {
        path.name: path.read_text()
        for path in given.folder.glob("*.md")
        if not path.name.startswith(_OTHERS)
    }
    if given.check:
        stale = sorted(n for n in {*wanted, *present} if wanted.get(n) != present.get(n))
        if stale:
            raise ConfigError(f"not what the code says: {', '.join(stale)}; run make docs")
        return 0
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in set(present) - set(wanted):
        (given.folder / name).unlink()
    for name, text in wanted.items():
        (given.folder / name).write_text(text)
    return 0


def _index() -> str:
    lines = ["# Reference\n", "- [nbdserve](nbdserve.md): the daemon"]
    lines += ["- [nbdctl](nbdctl.md): its tool", "- [configuration](configuration.md): the file"]
    lines.append("- [minicloud](minicloud.md): the smallest cloud on it")
    lines.append("- [minicloud-inventory](minicloud-inventory.md): what minicloud works with")
    lines.append("\nSources:\n")
    lines += [_entry("source", name, find_source(name)) for name in builtin_sources()]
    lines.append("\nLayers:\n")
    lines += [_entry("layer", name, find_layer(name)) for name in builtin_layers()]
    return "\n".join(lines) + "\n"


def _entry(kind: str, name: str, cls: type) -> str:
    return f"- [{name}]({kind}-{name}.md): {_first_line(cls)}"


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0].rstrip(".")


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    return f"# {name}\n\n{parser.description}\n\n{usage_block(parser)}{options_table(parser)}"


def _nbdctl() -> str:
    made = nbdctl_parser()
    text = f"# nbdctl\n\n{made.description}\n\n{_subcommands('nbdctl', made)}"
    return (
        text + "\n".join(line for line in _EXIT.splitlines() if "--run" not in line).rstrip() + "\n"
    )


def _subcommands(prefix: str, parser: argparse.ArgumentParser) -> str:
    text = ""
    for action in parser._actions:  # noqa: SLF001 -- argparse has no public way to list subcommands
        if not isinstance(action.choices, dict):
            continue
        for name, sub in action.choices.items():
            below = _subcommands(f"{prefix} {name}", sub)
            text += below or f"## {prefix} {name}\n\n{usage_block(sub)}{options_table(sub)}"
    return text


def usage_block(parser: argparse.ArgumentParser) -> str:
    """Give the usage of a command as a block of Markdown."""
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    return f"```\n{usage}\n```\n\n"


def options_table(parser: argparse.ArgumentParser) -> str:
    """Make a table of a command's options; "" if it has none."""
    rows = []
    for action in parser._actions:  # noqa: SLF001 -- likewise for options
        if action.help in (argparse.SUPPRESS, None) or not action.option_strings:
            continue
        names = ", ".join(f"`{option}`" for option in action.option_strings)
        value = action.metavar or ("|".join(action.choices) if action.choices else "")
        shown = str(value).replace("|", "\\|")
        rows.append(f"| {names} {f'`{shown}`' if shown else ''} | {action.help} |")
    return "| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n\n" if rows else ""


def _configuration() -> str:
    rows = [
        f"| `{key}` | {known.kind.name.replace('|', chr(92) + '|')} | {known.help}"
        f"{'; may be a list' if known.many else ''} |"
        for key, known in SERVER_KEYS.items()
    ]
    return (
        "# The configuration file\n\n"
        "TOML, read by `nbdserve --config FILE` and checked by `nbdctl check FILE`. Sizes take K, "
        "M, G and T; durations ms, s, m and h.\n\n"
        "```toml\n"
        "[server]\n"
        'unix = "/run/nbdserve/nbd.sock"\n'
        "port = 10809\n\n"
        "[[export]]\n"
        'name = "debian"\n'
        'description = "Debian 12, copy on write"\n'
        'layers = ["cow", { type = "cache", size = "256M" }, "xz"]\n'
        'source = { type = "http", url = "https://example.com/debian-12.raw.xz" }\n'
        "```\n\n"
        "## [server]\n\n| key | value | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "## [[export]]\n\n"
        "| key | value | meaning |\n|---|---|---|\n"
        '| `name` | TEXT | what clients ask for (default "") |\n'
        "| `description` | TEXT | told to clients that list exports |\n"
        "| `read-only` | BOOL | refuse writes (default false) |\n"
        "| `exclusive` | BOOL | one client at a time; a migration is let through by `nbdctl export "
        "handover` (default false) |\n"
        "| `layers` | list of elements | nearest the client first |\n"
        "| `source` | element | required |\n\n"
        'An element is its name, `"xz"`, or a table, `{ type = "slice", offset = "1M" }`, with the '
        "keys of its own page. A key that may be given several times takes a list.\n"
    )


def _element(kind: str, name: str, cls: type[Device]) -> str:
    params = params_of(cls.Params)
    text = f"# {kind} {name}\n\n{inspect.getdoc(cls) or ''}\n\n"
    if not params:
        return text + "It takes no keys.\n"
    rows = []
    for param in params:
        notes = [default_text(param)]
        notes += ["also the bare argument"] if param.argument else []
        notes += ["may be given several times"] if param.many else []
        kind_name = param.kind.name.replace("|", "\\|")
        rows.append(f"| `{param.key}` | {kind_name} | {param.help} ({'; '.join(notes)}) |")
    return text + "| key | value | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
