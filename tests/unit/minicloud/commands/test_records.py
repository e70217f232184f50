"""A guest's record is replaced as a whole, whatever becomes of who replaces it."""

import asyncio

import pytest

from minicloud.commands.records import write_record
from minicloud.model.inventory import NbdService
from minicloud.moving.record import Record
from minicloud.storage.service import Storage
from nbdserve.control.codec import encode_reply, parse_request
from nbdserve.control.messages import Result


async def test_a_record_is_not_lost_by_a_cancellation(tmp_path):
    seen = []
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def serve(reader, writer):
        request = parse_request(await reader.readline())
        seen.append(request.command)
        asked.set()
        await may_answer.wait()
        writer.write(encode_reply(Result(request.id, {})))
        writer.close()

    path = str(tmp_path / "c.sock")
    async with await asyncio.start_unix_server(serve, path):
        storage = Storage(NbdService(address="localhost", control=path))
        writing = asyncio.create_task(write_record(storage, "web1", Record("ham0", "<domain/>")))
        await asked.wait()
        writing.cancel()
        await asyncio.sleep(0)
        may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert seen == ["export.remove", "export.add"]
