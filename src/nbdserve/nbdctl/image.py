"""Which image is meant: a source with its layers, as for nbdserve, or just a path or URL."""

import argparse
from collections.abc import Sequence

from nbdserve.errors import ConfigError
from nbdserve.registry import source_names
from nbdserve.spec import ElementSpec, ExportSpec, parse_layer, parse_source

__all__ = ["add_layer_option", "image_spec", "is_bare"]

_URL = ("http://", "https://")


def add_layer_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that wraps a source in layers."""
    parser.add_argument(
        "--layer", action="append", default=[], metavar="NAME[:key=value,…]",
        help="wrap the source in a layer, as nbdserve does",
    )  # fmt: skip


def is_bare(words: Sequence[str], layers: Sequence[str]) -> bool:
    """Tell whether a path or URL is named alone, so that what it is has to be found out."""
    return len(words) == 1 and not layers and words[0] not in source_names()


def image_spec(words: Sequence[str], layers: Sequence[str]) -> ExportSpec:
    """Turn what was written into a read-only chain; one word is a path or URL.

    Raises:
        ConfigError: it is wrong as written.
    """
    if not is_bare(words, layers):
        return ExportSpec(parse_source(words), tuple(map(parse_layer, layers)), read_only=True)
    (word,) = words
    if not word:
        raise ConfigError("an empty path; name a file, a URL or a source")
    kind, key = ("http", "url") if word.startswith(_URL) else ("file", "path")
    return ExportSpec(ElementSpec(kind, ((key, word),)), read_only=True)
