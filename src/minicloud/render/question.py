"""A yes-or-no question to whoever sits at the terminal; where nobody does, the answer is no."""

import asyncio
import sys

__all__ = ["ask"]


async def ask(question: str) -> bool:
    """Put a question; anything but y or yes is no, and so is the end of input."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    typed = loop.create_future()

    def readable() -> None:
        if not typed.done():
            typed.set_result(sys.stdin.readline())  # a terminal gives whole lines

    loop.add_reader(sys.stdin.fileno(), readable)
    try:
        line: str = await typed
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return line.strip().lower() in {"y", "yes"}
