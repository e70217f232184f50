"""The http source against a server that misbehaves by script."""

import asyncio
import errno
from contextlib import aclosing

import pytest

from httpsources import CONTENTS, SIZE
from nbdserve.errors import DeviceError
from nbdserve.sources.http import HttpSource
from nbdserve.sources.httpopening import TAIL
from webserver import Asked, broken_off, status, webserver


async def test_opening_is_one_request_for_the_tail(web, opened):
    source = await opened(forget=False)
    assert [asked.range for asked in web.asked] == [f"bytes=-{TAIL}"]
    assert source.info.size == SIZE


async def test_the_tail_is_not_fetched_again(web, opened):
    source = await opened()
    assert await source.read(SIZE - TAIL, TAIL) == CONTENTS[-TAIL:]
    assert web.asked == []


async def test_a_read_is_one_request_for_exactly_its_bytes(web, opened):
    source = await opened()
    assert await source.read(1000, 5000) == CONTENTS[1000:6000]
    assert [asked.range for asked in web.asked] == ["bytes=1000-5999"]
    assert web.asked[0].headers["if-range"] == '"one"'
    assert web.asked[0].headers["accept-encoding"] == "identity"


async def test_connections_are_reused(web, opened):
    source = await opened(connections=1)
    for at in range(0, 100_000, 10_000):
        await source.read(at, 100)
    assert web.connections == 1


async def test_reads_overlap_up_to_the_number_of_connections(web, opened):
    source = await opened(connections=4)
    assert source.info.streams == 4
    reads = [source.read(at, 1000) for at in range(0, 200_000, 10_000)]
    for at, data in zip(range(0, 200_000, 10_000), await asyncio.gather(*reads), strict=True):
        assert data == CONTENTS[at : at + 1000]
    assert web.connections <= 4


async def test_a_stream_is_one_request_and_comes_in_pieces(web, opened):
    source = await opened()
    async with aclosing(source.stream(1000, 200_000)) as pieces:
        assert b"".join([piece async for piece in pieces]) == CONTENTS[1000:201_000]
    assert [asked.range for asked in web.asked] == ["bytes=1000-200999"]


async def test_a_stream_yields_before_the_last_byte_is_sent(web, opened):
    source = await opened()
    web.script = [broken_off(1000)]
    async with aclosing(source.stream(0, 5000)) as pieces:
        assert await anext(pieces) == CONTENTS[:1000], "nothing more was sent yet"
        assert b"".join([piece async for piece in pieces]) == CONTENTS[1000:5000]
    assert [asked.range for asked in web.asked] == ["bytes=0-4999", "bytes=1000-4999"]


async def test_a_stream_of_the_tail_costs_no_request(web, opened):
    source = await opened()
    pieces = [piece async for piece in source.stream(SIZE - 5000, 5000)]
    assert b"".join(pieces) == CONTENTS[-5000:]
    assert [piece async for piece in source.stream(0, 0)] == []
    assert web.asked == []


async def test_a_stream_closed_early_fetches_no_more(opened, web):
    web.contents = bytes(64 << 20)
    source = await opened(connections=1)
    sent = web.sent
    async with aclosing(source.stream(0, 60 << 20)) as pieces:
        await anext(pieces)
    await asyncio.wait_for(web.idle.wait(), 30)
    assert web.sent - sent < 30 << 20, "the connection was dropped, and held back before"
    assert await source.read(8, 100) == bytes(100), "its slot is free again"


async def test_a_stream_that_waits_for_its_taker_is_not_given_up(web, opened):
    web.contents = bytes(64 << 20)
    source = await opened(timeout="100ms", retry_for="100ms")
    async with aclosing(source.stream(0, 60 << 20)) as pieces:
        done = len(await anext(pieces))
        await asyncio.sleep(0.3)  # no guess: longer than every limit the source was given
        async for piece in pieces:
            done += len(piece)
    assert done == 60 << 20
    assert len(web.asked) == 1


async def test_a_stream_fails_as_a_read_does(web, opened):
    source = await opened(retry_for="200ms")
    web.script = [broken_off(1000), *[status("503 Busy")] * 1000]
    pieces = source.stream(0, 5000)
    assert await anext(pieces) == CONTENTS[:1000]
    with pytest.raises(DeviceError, match="503 Busy"):
        await anext(pieces)


@pytest.mark.parametrize("size", [0, 1, TAIL, TAIL + 1])
async def test_files_of_every_size_are_opened(size):
    async with webserver(CONTENTS[:size]) as web:
        source = HttpSource(HttpSource.Params(url=(web.url(),)))
        await source.open(read_only=True)
        assert source.info.size == size
        assert await source.read(0, size) == CONTENTS[:size]
        await source.close()


async def test_an_empty_file_that_is_answered_by_200_is_empty(web, opened):
    web.script = [status("200 OK")]
    assert (await opened()).info.size == 0


@pytest.mark.parametrize("line", ["416 Range Not Satisfiable", "206 Partial Content"])
async def test_a_server_without_suffix_ranges_is_asked_for_the_first_byte(web, opened, line):
    web.script = [status(line)]
    source = await opened(forget=False)
    assert [asked.range for asked in web.asked] == [f"bytes=-{TAIL}", "bytes=0-0"]
    assert await source.read(SIZE - 10, 10) == CONTENTS[-10:]


@pytest.mark.parametrize(
    "line",
    ["500 Oops", "502 Bad Gateway", "503 Busy", "504 Late", "429 Slow Down", "408 Timeout"],
)
async def test_what_may_go_away_is_tried_again(web, opened, line):
    source = await opened()
    web.script = [status(line), status(line)]
    assert await source.read(0, 100) == CONTENTS[:100]
    assert len(web.asked) == 3
    assert source.retries == 2


async def test_retry_after_is_obeyed(web, opened):
    source = await opened()
    web.script = [status("429 Slow Down", Retry_After="1")]
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert await source.read(0, 100) == CONTENTS[:100]
    assert loop.time() - before >= 1


async def test_a_retry_after_beyond_the_deadline_is_an_error_at_once(web, opened):
    source = await opened(retry_for="5s")
    web.script = [status("503 Busy", Retry_After="3600")]
    with pytest.raises(DeviceError, match="503 Busy") as caught:
        await source.read(0, 100)
    assert caught.value.errno == errno.EIO
    assert len(web.asked) == 1


async def test_trying_ends_with_an_error_that_tells_the_cause(web, opened):
    source = await opened(retry_for="300ms")
    web.script = [status("503 Busy")] * 1000
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1.*503 Busy"):
        await source.read(0, 100)
    web.script = []
    assert await source.read(0, 100) == CONTENTS[:100], "a later read tries anew"


async def test_a_body_that_breaks_off_goes_on_from_where_it_broke(web, opened):
    source = await opened()
    web.script = [broken_off(1000), broken_off(0), broken_off(500)]
    assert await source.read(0, 5000) == CONTENTS[:5000]
    assert [asked.range for asked in web.asked] == [
        "bytes=0-4999", "bytes=1000-4999", "bytes=1000-4999", "bytes=1500-4999",
    ]  # fmt: skip


async def test_progress_renews_the_deadline(web, opened):
    source = await opened(retry_for="2s")
    web.script = [broken_off(100)] * 40
    assert await source.read(0, 5000) == CONTENTS[:5000]


async def test_a_server_that_goes_away_and_comes_back_is_waited_for(web, opened):
    source = await opened()
    web.script = [broken_off(10)]
    await web.stop()
    reading = asyncio.create_task(source.read(0, 5000))
    async with asyncio.timeout(30):
        while source.retries < 2:  # noqa: ASYNC110 -- a plain counter is all there is to watch
            await asyncio.sleep(0)
    await web.start()
    assert await reading == CONTENTS[:5000]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"etag": '"two"'}, 'ETag "one" -> "two"'),
        ({"etag": None, "last_modified": "Wed, 25 Nov 2026 10:00:00 GMT"}, "Last-Modified"),
        ({"etag": None, "last_modified": None, "contents": CONTENTS * 2}, "size"),
        ({"contents": b"short"}, ""),
    ],
)
async def test_a_file_that_was_replaced_is_an_error_never_a_mix(web, opened, change, told):
    source = await opened()
    assert await source.read(0, 100) == CONTENTS[:100]
    for name, value in change.items():
        setattr(web, name, value)
    with pytest.raises(DeviceError, match=f"changed while open.*{told}.*reopen"):
        await source.read(1000, 100)


async def test_a_file_replaced_in_the_middle_of_a_resumed_body_is_an_error(web, opened):
    source = await opened()
    web.script = [broken_off(1000)]

    def swap(server, asked):
        server.etag, server.contents = '"two"', bytes(SIZE)
        return server.ranged(asked)

    web.script.append(swap)
    with pytest.raises(DeviceError, match="changed while open"):
        await source.read(0, 5000)


async def test_a_200_instead_of_a_206_is_an_error_and_its_body_is_not_used(web, opened):
    source = await opened()
    web.script = [lambda server, _: server.head("200 OK", SIZE) + server.contents]
    with pytest.raises(DeviceError, match="stopped answering ranges"):
        await source.read(8, 100)


@pytest.mark.parametrize(
    "told", ["bytes 0-99/300000", "bytes 9-108/300000", "bytes 8-300/300000", "", "bytes 8-107/*x"]
)
async def test_another_range_than_asked_for_is_an_error(web, opened, told):
    source = await opened()
    web.script = [
        lambda server, _: server.head("206 Partial Content", 100, Content_Range=told) + bytes(100)
    ]
    with pytest.raises(DeviceError, match=r"asked for bytes 8-107"):
        await source.read(8, 100)


async def test_more_bytes_than_asked_for_are_an_error(web, opened):
    source = await opened()
    told = f"bytes 8-107/{SIZE}"
    web.script = [
        lambda server, _: server.head("206 Partial Content", 200, Content_Range=told) + bytes(200)
    ]
    with pytest.raises(DeviceError, match="more bytes than its answer said"):
        await source.read(8, 100)


async def test_more_bytes_than_the_answer_said_are_an_error_and_never_served(web, opened):
    source = await opened()
    told = f"bytes 8-57/{SIZE}"
    web.script = [
        lambda server, _: server.head("206 Partial Content", 100, Content_Range=told) + bytes(100)
    ]
    with pytest.raises(DeviceError, match="more bytes than its answer said"):
        await source.read(8, 100)


async def test_a_server_that_caps_ranges_is_read_to_the_end(web, opened):
    source = await opened()

    def capped(server, asked):
        first, last = map(int, asked.range.removeprefix("bytes=").split("-"))
        short = Asked(asked.path, {"range": f"bytes={first}-{min(last, first + 39_999)}"})
        return server.ranged(short)

    web.always = capped
    assert await source.read(0, 200_000) == CONTENTS[:200_000]


async def test_an_answer_that_confirms_no_validator_is_refused(web, opened):
    """As of a mirror set of which one server tells no versions, ignores If-Range, and is stale."""
    source = await opened()
    web.etag = web.last_modified = None
    web.contents = bytes(SIZE)
    web.always = lambda server, asked: server.ranged(Asked(asked.path, {"range": asked.range}))
    with pytest.raises(DeviceError, match=r'changed while open .ETag "one" -> none'):
        await source.read(0, 8)


@pytest.mark.parametrize("kept", ["etag", "last_modified"])
async def test_an_answer_that_confirms_one_validator_is_taken(web, opened, kept):
    source = await opened()
    for name in {"etag", "last_modified"} - {kept}:
        setattr(web, name, None)
    web.always = lambda server, asked: server.ranged(Asked(asked.path, {"range": asked.range}))
    assert await source.read(0, 8) == CONTENTS[:8]


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "\u00b2"},
        {"Retry_After": "9" * 5000},
        {"Retry_After": "Mon, 01 Jan 0001 00:00:00 -0000"},
    ],
)
async def test_a_retry_after_that_is_none_is_overlooked(web, opened, headers):
    web.script = [status("503 Busy", **headers)]
    source = await opened()
    assert await source.read(0, 8) == CONTENTS[:8]


async def test_a_size_of_thousands_of_digits_is_none(web, opened):
    web.script = [
        lambda server, _: server.head("206 Partial", 0, Content_Range=f"bytes 0-1/{'9' * 5000}")
    ]
    source = await opened(retry_for="1s")
    assert source.info.size == SIZE


async def test_an_encoded_answer_is_refused(web, opened):
    source = await opened()

    def encoded(server, asked):
        head, _, body = server.ranged(asked).partition(b"\r\n\r\n")
        return head + b"\r\nContent-Encoding: gzip\r\n\r\n" + body

    web.script = [encoded]
    with pytest.raises(DeviceError, match="Content-Encoding gzip"):
        await source.read(0, 100)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("404 Not Found", "check the URL"),
        ("401 Unauthorized", "password-file"),
        ("403 Forbidden", "credentials"),
        ("418 Teapot", "check the URL"),
    ],
)
async def test_what_will_not_go_away_is_an_error_at_once(web, opened, line, remedy):
    web.script = [status(line)]
    with pytest.raises(DeviceError, match=f"{line}.*{remedy}"):
        await opened()
    assert len(web.asked) == 1


async def test_a_server_that_is_not_there_is_an_error_at_once(web, opened):
    await web.stop()
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1.*check the URL"):
        await opened()


async def test_a_stalled_answer_is_given_up_and_tried_again(web, opened):
    source = await opened(timeout="100ms")
    web.script = [lambda server, _: server.head("206 Partial Content", 5000)[:-20] + b"X-Half: "]
    assert await source.read(0, 100) == CONTENTS[:100]


async def test_a_server_without_ranges_gets_one_download(web, opened, tmp_path):
    web.script = [lambda server, _: server.head("200 OK", SIZE) + server.contents] * 2
    source = await opened(forget=False, download_dir=str(tmp_path))
    assert source.info.size == SIZE
    assert await source.read(1000, 5000) == CONTENTS[1000:6000]
    assert source.read_into_nowait(0, memoryview(bytearray(4096)))
    assert len(web.asked) == 2
    assert list(tmp_path.iterdir()) == [], "the file has no name"


async def test_a_download_that_breaks_off_is_begun_again(web, opened):
    whole = lambda server, _: server.head("200 OK", SIZE) + server.contents  # noqa: E731
    half = lambda server, _: server.head("200 OK", SIZE) + server.contents[:1000]  # noqa: E731
    web.script = [whole, half, whole, whole]
    source = await opened(max_bytes=SIZE + 1000)  # what did not come is free for the next try
    assert await source.read(0, SIZE) == CONTENTS


async def test_a_cancelled_read_leaves_the_source_usable(web, opened):
    source = await opened(connections=1)
    web.script = [broken_off(0)] * 3
    for _ in range(20):
        reading = asyncio.create_task(source.read(0, 100_000))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert await source.read(0, 100) == CONTENTS[:100]
