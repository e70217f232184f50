"""The `minicloud` command: announced, not there yet."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from minicloud import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Tell what there is; exit status 2, since nothing was done."""
    parser = argparse.ArgumentParser(
        prog="minicloud", description="Parallel libvirt over ssh, with guests on nbdserve exports."
    )
    parser.add_argument("-V", "--version", action="version", version=f"minicloud {__version__}")
    parser.parse_args(argv)
    print("minicloud: not there yet; see CHANGELOG.md", file=sys.stderr)  # noqa: T201 -- its voice
    sys.exit(2)
