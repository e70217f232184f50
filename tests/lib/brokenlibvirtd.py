"""Daemons that listen at libvirt's socket and are of no use."""

import asyncio
import contextlib
import socket
import struct

__all__ = ["mute", "refusing"]

_HEADER = struct.Struct(">IIIiiIi")  # libvirt's virnetprotocol.x: length, then virNetMessageHeader
_REPLY, _ERROR = 1, 1


@contextlib.contextmanager
def mute(path):
    """Take connections, in the kernel's queue, and say nothing; gives the listener."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


@contextlib.asynccontextmanager
async def refusing(path, code, message):
    """Answer whatever is asked first with an error of libvirt's."""

    async def refuse(reader, writer):
        asked = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        _, program, version, procedure, _, serial, _ = asked
        text = message.encode()
        text += bytes(-len(text) % 4)
        # virNetMessageError: code, domain, message, level, and nothing else
        error = (
            struct.pack(">iiII", code, 0, 1, len(message)) + text + struct.pack(">i7I", 2, *[0] * 7)
        )
        writer.write(_HEADER.pack(_HEADER.size + len(error), program, version, procedure,
                                  _REPLY, serial, _ERROR) + error)  # fmt: skip
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(refuse, path):
        yield
