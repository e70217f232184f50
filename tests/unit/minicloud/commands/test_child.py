import asyncio
import os
import signal
import sys

import pytest

from minicloud.commands.child import require, run_child
from minicloud.errors import NodeError, Reason


def python(text):
    return [sys.executable, "-c", text]


async def test_a_programs_status_and_words_are_kept():
    ended = await run_child(
        python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), gather=True
    )
    assert (ended.status, ended.stdout, ended.stderr) == (7, b"out\n", b"err\n")


async def test_a_program_that_a_signal_ended_has_a_shells_status():
    ended = await run_child(python(f"import os; os.kill(os.getpid(), {signal.SIGTERM:d})"))
    assert ended.status == 128 + signal.SIGTERM


async def test_a_gathered_program_has_nothing_to_read():
    ended = await run_child(python("import sys; print(repr(sys.stdin.read()))"), gather=True)
    assert ended.stdout == b"''\n"


async def test_a_program_ends_with_the_command(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = asyncio.create_task(
        run_child(python(f"open({str(pipe)!r}, 'w').close(); import time; time.sleep(3600)"))
    )
    await asyncio.to_thread(pipe.read_text)  # it runs
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_a_program_that_is_missing_is_one_line_with_the_remedy():
    with pytest.raises(NodeError, match="no-such-viewer is not on this machine; install it") as got:
        require("no-such-viewer", "install it")
    assert got.value.reason is Reason.TOOL


def test_a_program_that_is_there_is_found():
    assert os.access(require("sh", ""), os.X_OK)
