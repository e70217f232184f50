"""A web server that misbehaves by script: raw bytes over asyncio, every request recorded."""

import asyncio
import contextlib
import re
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

__all__ = [
    "Asked",
    "WebServer",
    "broken_off",
    "held",
    "misbehaving",
    "redirect",
    "silent",
    "status",
    "throttled",
    "webserver",
]

_PIECE = 64 << 10  # a client that goes away midway is noticed between two of them


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came; header names in lower case."""

    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


Answer = Callable[["WebServer", Asked], bytes | AsyncIterator[bytes]]
"""Makes the bytes of an answer, or the pieces of one that takes its time.

The connection is closed after fewer bytes than announced.
"""


@dataclass
class WebServer:
    """Serves `contents` by ranges; `script` answers the next requests first."""

    contents: bytes
    etag: str | None = '"one"'
    last_modified: str | None = "Tue, 24 Nov 2026 10:00:00 GMT"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    """Answers what `script` does not; `ranged` by default."""
    cut_after: int | None = None
    """Bytes a connection carries before it is cut."""
    connections: int = 0
    sent: int = 0
    """Bytes the system took of us; not all need have arrived."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no connection is open."""
    server: asyncio.Server | None = None
    _open: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    tls: ssl.SSLContext | None = None

    def url(self, path: str = "disk.img") -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/{path}"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections; those that are open stay, as with a server that is ending."""
        if self.server is not None:
            self.server.close()
            self.server = None

    async def end(self) -> None:
        """Stop, and drop what is open."""
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._open += 1
        self.idle.clear()
        try:
            with contextlib.suppress(asyncio.CancelledError):  # `end`; asyncio would log it
                await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()
            self._open -= 1
            if not self._open:
                self.idle.set()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = _Left(self.cut_after)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = (line.partition(":") for line in lines[1:] if line)
                asked = Asked(lines[0].split()[1], {n.lower(): v.strip() for n, _, v in fields})
                self.asked.append(asked)
                make = self.script.pop(0) if self.script else self.always or WebServer.ranged
                if not await self._send(writer, make(self, asked), left):
                    break

    async def _send(
        self, writer: asyncio.StreamWriter, answer: bytes | AsyncIterator[bytes], left: "_Left"
    ) -> bool:
        """Send an answer; False if the connection is to be closed after it."""
        head, sent = b"", 0
        async for piece in _pieces(answer) if isinstance(answer, bytes) else answer:
            head = head or piece
            carried = left.take(piece)
            writer.write(carried)
            await writer.drain()
            sent += len(carried)
            self.sent += len(carried)
            if left.length == 0:
                return False
        head = head.partition(b"\r\n\r\n")[0]
        announced = re.search(rb"Content-Length: (\d+)", head)
        return announced is not None and sent >= len(head) + 4 + int(announced[1])


@dataclass
class _Left:
    """What a connection may still carry."""

    length: int | None

    def take(self, piece: bytes) -> bytes:
        if self.length is None:
            return piece
        piece = piece[: self.length]
        self.length -= len(piece)
        return piece


async def _pieces(answer: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(answer), _PIECE):
        yield answer[at : at + _PIECE]


def status(line: str, **headers: str) -> Answer:
    """Answer with a status and no body."""
    return lambda server, _: server.head(line, 0, **headers)


def broken_off(after: int) -> Answer:
    """Answer as a good server, and break off after so many bytes of the body."""

    def answer(server: WebServer, asked: Asked) -> bytes:
        head, _, body = server.ranged(asked).partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + body[:after]

    return answer


def held(event: asyncio.Event, after: int = -1) -> Answer:
    """Answer as a good server after `event`; if `after` >= 0, headers and so much come before."""

    async def answer(server: WebServer, asked: Asked) -> AsyncIterator[bytes]:
        whole = server.ranged(asked)
        first = 0 if after < 0 else whole.index(b"\r\n\r\n") + 4 + after
        if first:
            yield whole[:first]
        await event.wait()
        yield whole[first:]

    return answer


def redirect(to: str) -> Answer:
    """Redirect to another address."""
    return status("302 Found", Location=to)


def throttled(rate: int) -> Answer:
    """Answer as a good server does that gives all its connections so many bytes a second."""
    line = asyncio.Lock()

    async def answer(server: WebServer, asked: Asked) -> AsyncIterator[bytes]:
        async for piece in _pieces(server.ranged(asked)):
            async with line:
                await asyncio.sleep(len(piece) / rate)
            yield piece

    return answer


async def silent(server: WebServer, asked: Asked) -> AsyncIterator[bytes]:
    """Take the request and never answer."""
    await asyncio.Event().wait()
    yield b""


@contextlib.contextmanager
def misbehaving(contents: bytes, **facts: object) -> Iterator[WebServer]:
    """Run a server on an event loop in a thread of its own, for the time of a block."""
    server = WebServer(contents, **facts)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.end(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


@contextlib.asynccontextmanager
async def webserver(contents: bytes, **facts: object) -> AsyncIterator[WebServer]:
    """Run a server for the time of a block."""
    server = WebServer(contents, **facts)
    await server.start()
    try:
        yield server
    finally:
        await server.end()
