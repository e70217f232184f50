"""An export's handover ends when it is told to, whatever is still being asked for."""

import asyncio

from minicloud.commands.handover import handed_over
from minicloud.model.inventory import NbdService
from minicloud.storage.service import Storage
from nbdserve.control.codec import encode_reply, parse_request
from nbdserve.control.messages import Result


class SlowServer:
    """Answers all but the second handover, and notes what came, and that its client left."""

    def __init__(self):
        self.seen = []
        self.asked_again = asyncio.Event()

    async def serve(self, reader, writer):
        request = parse_request(await reader.readline())
        self.seen.append(request.command)
        if request.command == "export.handover" and self.seen.count(request.command) == 2:
            self.asked_again.set()
            await reader.read()
            self.seen.append("left")
        else:
            writer.write(encode_reply(Result(request.id, {"exports": []})))
        writer.close()


async def test_asking_once_more_ends_before_the_handover_does(tmp_path):
    server = SlowServer()
    path = str(tmp_path / "c.sock")
    async with await asyncio.start_unix_server(server.serve, path):
        storage = Storage(NbdService(address="localhost", control=path))
        async with handed_over(storage, ["guest/web1"], again=0):
            await server.asked_again.wait()
    assert [one for one in server.seen if one != "export.list"] == [
        "export.handover", "export.handover", "left", "export.handover-end",
    ]  # fmt: skip
