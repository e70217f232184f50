"""How nbdctl speaks: answers on stdout, all else on stderr. Nothing else here prints."""

import json
import sys

__all__ = ["answer", "answer_json", "complain"]


def answer(text: str) -> None:
    """Print an answer."""
    print(text.rstrip("\n"))  # noqa: T201 -- the command's answer


def answer_json(value: object) -> None:
    """Print an answer as one JSON document."""
    answer(json.dumps(value, indent=2))


def complain(message: str) -> None:
    """Print one line about what is wrong."""
    print(f"nbdctl: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 -- likewise
