"""Values on the command line, read as nbdserve reads those of its own."""

import argparse
from collections.abc import Callable
from typing import TypeVar

__all__ = ["typed"]

T = TypeVar("T")


def typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Have argparse say what is wrong with a value in the words of its reader.

    Args:
        parse: reads it; its ValueError says what may be written.
    """

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r} is none: {exc}") from None

    return parsed
