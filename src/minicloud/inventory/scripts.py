"""Executable templates, as mclu had them: a program that answers questions, one a call.

`NAME.template` is called with one word, the question. It prints the answer and exits with 0, or
exits with 2 for a question it does not know. `probe` is asked first and answered `hello`;
`base-image` must be known. A script's answers become a `Template` like the tables of the inventory,
through the same keys and checks.

Scripts are looked for in `templates/` beside the inventory and in the folders of MINICLOUD_PATH;
of two with one name the first counts, and a table of the inventory before both. None is run before
its template is asked for. Invariant: no process outlives the question: when the time is over, or
the asker is cancelled, its whole group is killed.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from minicloud.errors import UsageError
from minicloud.inventory.keys import TEMPLATE_KEYS
from minicloud.inventory.places import scripts_beside
from minicloud.inventory.reading import InventoryError
from minicloud.inventory.tables import TableReader
from minicloud.inventory.templates import build_template, has_images_here
from minicloud.model.inventory import Inventory, Template
from nbdserve.params import closest

__all__ = ["QUESTIONS", "scripts_of", "template", "template_names"]

_RENAMED: Final = {"base-image": "image", "disk-bus": "bus", "recommended-memory": "memory"}
QUESTIONS: Final[Mapping[str, str]] = {
    **_RENAMED,  # mclu's own words; `memory` comes after, so that it counts where both are known
    **{key: key for key in TEMPLATE_KEYS if key not in {"image", "bus"}},
}
"""Each question but `probe`, and the key of a template that its answer is."""

_UNKNOWN: Final = 2  # the exit status for "I do not know that parameter", as in mclu
_DEADLINE: Final = 10.0  # seconds for all answers of one script
_AT_ONCE: Final = 8  # questions; each is a process
_MOST: Final = 64 << 10  # bytes of an answer


def template_names(inventory: Inventory) -> list[str]:
    """List the templates, those of the inventory first; nothing is run."""
    return list(dict.fromkeys([*inventory.templates, *scripts_of(inventory)]))


async def template(inventory: Inventory, name: str, *, deadline: float = _DEADLINE) -> Template:
    """Give a template, of the inventory or of a script, which is run now.

    Args:
        inventory: what the operator wrote.
        name: of the template.
        deadline: seconds a script has for all its answers.

    Raises:
        UsageError: there is none of this name, or the script gives no good answers.
    """
    written = inventory.templates.get(name)
    if written is not None:
        return written
    path = scripts_of(inventory).get(name)
    if path is None:
        known = closest(name, template_names(inventory))
        raise UsageError(f"no template is called {name!r}; {known}", file=inventory.file)
    return _template(inventory, name, path, await _answers(path, deadline))


def scripts_of(inventory: Inventory) -> dict[str, Path]:
    """Find the executable templates, by name; nothing is run."""
    return scripts_beside(inventory.file)


def _template(inventory: Inventory, name: str, path: Path, answers: Mapping[str, str]) -> Template:
    reader = TableReader(path)
    values: dict[str, Any] = {}
    for question, key in QUESTIONS.items():
        if question in answers:
            value = _value(reader, question, answers[question])
            if value is not None:
                values[key.replace("-", "_")] = value
    if "image" not in values and not reader.errors:
        reader.wrong(None, "base-image", "must be known, and print a URL or a path")
    made = None
    if not reader.errors:
        made = build_template(
            name, values, inventory.defaults,
            reader=reader, table=None, folder=path.parent,
            images_here=has_images_here(inventory.nbd),
        )  # fmt: skip
    if made is None:
        raise InventoryError(reader.errors)
    return made


def _value(reader: TableReader, question: str, answer: str) -> Any:
    """Read an answer; None for an empty one, which says as little as an unknown question."""
    key = TEMPLATE_KEYS[QUESTIONS[question]]
    if not key.many:
        return reader.parsed(key.kind, answer, None, question) if answer else None
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    parsed = [reader.parsed(key.kind, line, None, question) for line in lines]
    # no layer at all is an answer; no image is none
    return tuple(parsed) if parsed or question != "base-image" else None


async def _answers(path: Path, deadline: float) -> dict[str, str]:
    """Ask a script everything.

    Returns:
        The answers to the questions it knows.
    """
    try:
        async with asyncio.timeout(deadline):
            greeting = await _ask(path, "probe")
            if greeting != "hello":
                said = "it does not know the question" if greeting is None else repr(greeting[:80])
                raise UsageError(
                    f"must print hello, as a template does ({said})", file=path, key="probe"
                )
            answers = await _ask_all(path)
    except TimeoutError:
        raise UsageError(f"gave no answers within {deadline:g} s", file=path) from None
    return {question: answer for question, answer in answers.items() if answer is not None}


async def _ask_all(path: Path) -> dict[str, str | None]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: str) -> str | None:
        async with free:
            return await _ask(path, question)

    answers = await asyncio.gather(*map(ask, QUESTIONS), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, UsageError)]
    if errors:
        raise InventoryError(errors)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return dict(zip(QUESTIONS, answers, strict=True))  # type: ignore[arg-type]  # no errors are left


async def _ask(path: Path, question: str) -> str | None:
    """Put one question; None if the script does not know it."""
    async with _started(path, question) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, complaint = await asyncio.gather(
            _read(process.stdout, path, question), _read(process.stderr, path, question)
        )
        status = await process.wait()
    if status == _UNKNOWN:
        return None
    if status != 0:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        words = " ".join(complaint.split())
        raise UsageError(f"{how}: {words}" if words else how, file=path, key=question)
    return said.strip()


@contextlib.asynccontextmanager
async def _started(path: Path, question: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a script; if this is left by an error, all it started is killed."""
    process = await _start(path, question)
    try:
        yield process
    except BaseException:
        _kill(process)
        raise
    finally:
        await _close(process)


async def _start(path: Path, question: str) -> asyncio.subprocess.Process:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            path, question, cwd=path.parent, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
    )  # fmt: skip
    try:
        return await asyncio.shield(starting)
    except OSError as exc:
        remedy = "; chmod +x it" if isinstance(exc, PermissionError) else ""
        raise UsageError(f"cannot be run: {exc.strerror}{remedy}", file=path) from exc
    except asyncio.CancelledError:
        # to its end first: asyncio loses the pipes it was about to connect
        with contextlib.suppress(OSError):
            process = await starting
            _kill(process)
            await _close(process)
        raise


def _kill(process: asyncio.subprocess.Process) -> None:
    # its children too: one of them may hold the output open though the script has ended
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _close(process: asyncio.subprocess.Process) -> None:
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 -- nothing else does
    await process.wait()


async def _read(stream: asyncio.StreamReader, path: Path, question: str) -> str:
    pieces = bytearray()
    while piece := await stream.read(_MOST):
        pieces += piece
        if len(pieces) > _MOST:
            raise UsageError(f"prints more than {_MOST} bytes", file=path, key=question)
    try:
        return pieces.decode()
    except UnicodeDecodeError:
        raise UsageError("prints what is no UTF-8", file=path, key=question) from None
