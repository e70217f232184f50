"""A web server that misbehaves by script: raw bytes over asyncio, every request recorded."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

__all__ = ["Asked", "WebServer", "broken_off", "redirect", "status", "webserver"]

_PIECE = 64 << 10  # a client that goes away midway is noticed between two of them


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came; header names in lower case."""

    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


Answer = Callable[["WebServer", Asked], bytes]
"""Makes the bytes of an answer; the connection is closed after fewer bytes than announced."""


@dataclass
class WebServer:
    """Serves `contents` by ranges; `script` answers the next requests first."""

    contents: bytes
    etag: str | None = '"one"'
    last_modified: str | None = "Tue, 24 Nov 2026 10:00:00 GMT"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    """Bytes the system took of us; not all need have arrived."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no connection is open."""
    server: asyncio.Server | None = None
    _open: int = 0

    def url(self, path: str = "disk.img") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None

    def head(self, line: str, length: int, **more: str) -> bytes:
        """Encode a status line and headers, with the validators of the file."""
        fields = {"Content-Length": str(length)}
        if self.etag:
            fields["ETag"] = self.etag
        if self.last_modified:
            fields["Last-Modified"] = self.last_modified
        fields |= {name.replace("_", "-"): value for name, value in more.items()}
        lines = [f"HTTP/1.1 {line}", *(f"{n}: {v}" for n, v in fields.items() if v)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def ranged(self, asked: Asked) -> bytes:
        """Answer a range as a good server does, If-Range included."""
        size = len(self.contents)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.range)
        condition = asked.headers.get("if-range")
        if match is None or (condition and condition not in (self.etag, self.last_modified)):
            return self.head("200 OK", size) + self.contents
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start >= size:
            return self.head("416 Range Not Satisfiable", 0, Content_Range=f"bytes */{size}")
        body = self.contents[start : end + 1]
        told = f"bytes {start}-{end}/{size}"
        return self.head("206 Partial Content", len(body), Content_Range=told) + body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open += 1
        self.idle.clear()
        try:
            await self._converse(reader, writer)
        finally:
            writer.close()
            self._open -= 1
            if not self._open:
                self.idle.set()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = (line.partition(":") for line in lines[1:] if line)
                asked = Asked(lines[0].split()[1], {n.lower(): v.strip() for n, _, v in fields})
                self.asked.append(asked)
                answer = (self.script.pop(0) if self.script else WebServer.ranged)(self, asked)
                for at in range(0, len(answer), _PIECE):
                    writer.write(answer[at : at + _PIECE])
                    await writer.drain()
                    self.sent += len(answer[at : at + _PIECE])
                head, _, body = answer.partition(b"\r\n\r\n")
                announced = re.search(rb"Content-Length: (\d+)", head)
                if announced is None or len(body) < int(announced[1]):
                    break


def status(line: str, **headers: str) -> Answer:
    """Answer with a status and no body."""
    return lambda server, _: server.head(line, 0, **headers)


def broken_off(after: int) -> Answer:
    """Answer as a good server, and break off after so many bytes of the body."""

    def answer(server: WebServer, asked: Asked) -> bytes:
        head, _, body = server.ranged(asked).partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + body[:after]

    return answer


def redirect(to: str) -> Answer:
    """Redirect to another address."""
    return status("302 Found", Location=to)


@contextlib.asynccontextmanager
async def webserver(contents: bytes, **facts: object) -> AsyncIterator[WebServer]:
    """Run a server for the time of a block."""
    server = WebServer(contents, **facts)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
