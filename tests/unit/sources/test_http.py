"""The http source against a server that misbehaves by script."""

import asyncio
import errno
from contextlib import aclosing

import pytest

from httpsources import CONTENTS, SIZE
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources.http import HttpSource
from nbdserve.sources.httpopening import TAIL
from webserver import broken_off, redirect, status, webserver


@pytest.fixture
def opened(web, make):
    """Open a source, and forget the requests that took."""

    async def make_one(path="disk.img", *, forget=True, **given):
        source = await make(web.url(path), **given)
        if forget:
            web.asked.clear()
        return source

    return make_one


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
    with pytest.raises(DeviceError, match="more bytes than asked for"):
        await source.read(8, 100)


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


async def test_redirects_are_followed_once_and_remembered(web, opened):
    web.script = [redirect("/target")]
    source = await opened("moved", forget=False)
    for at in (0, 1000, 2000):
        await source.read(at, 100)
    assert [asked.path for asked in web.asked] == ["/moved", *["/target"] * 4]


async def test_a_redirect_that_expired_is_resolved_again(web, opened):
    web.script = [redirect("/signed?old")]
    source = await opened("moved")
    web.script = [status("403 Expired"), redirect("/signed?new")]
    assert await source.read(0, 100) == CONTENTS[:100]
    assert [asked.path for asked in web.asked] == ["/signed?old", "/moved", "/signed?new"]


async def test_credentials_do_not_follow_a_redirect_to_another_origin(web, opened, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    async with webserver(CONTENTS) as other:
        web.script = [redirect(other.url("target"))]
        source = await opened(bearer_file=str(tmp_path / "token"), forget=False)
        await source.read(0, 100)
        assert web.asked[0].headers["authorization"] == "Bearer secret"
        assert all("authorization" not in asked.headers for asked in other.asked)


async def test_secrets_of_any_name_stay_with_their_origin(web, opened, tmp_path):
    (tmp_path / "headers").write_text("X-Token: secret\n")
    async with webserver(CONTENTS) as other:
        web.script = [redirect(other.url("target"))]
        source = await opened(header_file=str(tmp_path / "headers"), forget=False)
        await source.read(0, 100)
        assert web.asked[0].headers["x-token"] == "secret"
        assert len(other.asked) == 2
        assert all("x-token" not in asked.headers for asked in other.asked)


async def test_a_circle_of_redirects_is_an_error(web, opened):
    web.always = redirect("/round")
    with pytest.raises(DeviceError, match="in a circle"):
        await opened()
    assert len(web.asked) == 11


async def test_a_redirect_to_no_web_server_is_an_error(web, opened):
    web.script = [redirect("file:///etc/passwd")]
    with pytest.raises(DeviceError, match="redirected to 'file:///etc/passwd'"):
        await opened()


async def test_a_target_found_again_is_remembered_again(web, opened):
    web.script = [redirect("/signed?old")]
    source = await opened("moved")
    web.script = [status("403 Expired"), redirect("/signed?new")]
    for at in (0, 1000, 2000):
        assert await source.read(at, 100) == CONTENTS[at : at + 100]
    assert [asked.path for asked in web.asked][3:] == ["/signed?new"] * 2


async def test_credentials_come_from_files(web, opened, tmp_path):
    (tmp_path / "password").write_text("pass:word\n")
    (tmp_path / "headers").write_text("X-One: 1\n\nX-Two: 2\n")
    await opened(
        forget=False, user="me", password_file=str(tmp_path / "password"),
        header_file=str(tmp_path / "headers"), header="X-Three: 3",
    )  # fmt: skip
    asked = web.asked[0].headers
    assert asked["authorization"] == "Basic bWU6cGFzczp3b3Jk"
    assert (asked["x-one"], asked["x-two"], asked["x-three"]) == ("1", "2", "3")


async def test_credentials_in_the_url_are_sent_and_never_shown(web):
    url = web.url().replace("http://", "http://me:hidden@") + "?signature=hidden"
    source = HttpSource(HttpSource.Params(url=(url,)))
    web.script = [status("404 Not Found")]
    with pytest.raises(DeviceError) as caught:
        await source.open(read_only=True)
    assert web.asked[0].headers["authorization"] == "Basic bWU6aGlkZGVu"
    assert "hidden" not in str(caught.value)


async def test_a_proxy_is_taken_from_the_environment(web, opened, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url("").rstrip("/"))
    source = HttpSource(HttpSource.Params(url=("http://mirror.invalid/disk.img",)))
    await source.open(read_only=True)
    assert web.asked[0].path == "http://mirror.invalid/disk.img"
    await source.close()


async def test_a_proxy_gets_its_credentials_and_some_hosts_get_no_proxy(web, opened, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url("").rstrip("/").replace("http://", "http://me:pass@"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await opened(forget=False)
    assert web.asked[0].path == "/disk.img"
    source = HttpSource(HttpSource.Params(url=("http://mirror.invalid/disk.img",)))
    await source.open(read_only=True)
    await source.close()
    assert web.asked[1].headers["proxy-authorization"] == "Basic bWU6cGFzcw=="


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
    source = await opened()
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


@pytest.mark.parametrize("url", ["ftp://x/y", "disk.img", "http://", "http://[::1/x"])
def test_what_is_no_url_is_told(url):
    with pytest.raises(ConfigError, match="URL"):
        HttpSource(HttpSource.Params(url=(url,)))
