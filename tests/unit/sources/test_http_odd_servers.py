"""The http source against Python's own web server, and that server with other servers' habits."""

import re
import struct
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nbdserve.params import params_from
from nbdserve.sources.http import HttpSource

SIZE = 300_000
CONTENTS = b"".join(struct.pack(">Q", at) for at in range(0, SIZE, 8))


class Ranged(BaseHTTPRequestHandler):
    """Answers ranges in one piece, and keeps the connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        first, last = re.fullmatch(r"bytes=(\d*)-(\d+)", self.headers["Range"]).groups()
        start = int(first) if first else SIZE - int(last)
        end = int(last) if first else SIZE - 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{SIZE}")
        self.answer(CONTENTS[start : end + 1])

    def answer(self, body):
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Chunked(Ranged):
    """Sends bodies in chunks, so without a length."""

    def answer(self, body):
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(body), 7000):
            piece = body[at : at + 7000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


class Closing(Ranged):
    """Says that it closes the connection after each answer, and does."""

    def answer(self, body):
        self.send_header("Connection", "close")
        super().answer(body)


class Impolite(Ranged):
    """Closes the connection after each answer without a word."""

    def answer(self, body):
        super().answer(body)
        self.close_connection = True


class Lengthless(Ranged):
    """Marks the end of a body by closing, as HTTP/1.0 did."""

    def answer(self, body):
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


class Plain(SimpleHTTPRequestHandler):
    """`python -m http.server`: HTTP/1.0, no ranges."""

    def log_message(self, *_):
        pass


@pytest.fixture(params=[Ranged, Chunked, Closing, Impolite, Lengthless, Plain])
def url(request, tmp_path):
    (tmp_path / "disk.img").write_bytes(CONTENTS)
    handler = request.param
    if handler is Plain:
        handler = partial(Plain, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/disk.img"
        finally:
            server.shutdown()
            thread.join()


async def test_the_bytes_are_right_however_they_are_sent(url):
    source = HttpSource(params_from(HttpSource.Params, [("", url)], element="http"))
    await source.open(read_only=True)
    try:
        assert source.info.size == SIZE
        for offset, length in [(0, 1), (0, SIZE), (8191, 50_000), (SIZE - 1, 1), (200_000, 99_999)]:
            assert await source.read(offset, length) == CONTENTS[offset : offset + length]
    finally:
        await source.close()
