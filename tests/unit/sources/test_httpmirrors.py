"""Several mirrors, each a server that misbehaves by script."""

import asyncio
import logging

import pytest

from httpsources import CONTENTS, SIZE, servers
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources import httpopening
from nbdserve.sources.http import HttpSource
from nbdserve.sources.httpopening import TAIL
from webserver import broken_off, held, silent, status

HALF = SIZE // 2
STALE = b"an older release" + CONTENTS[16:-16] + b"has another tail"


@pytest.fixture
async def three():
    async with servers(CONTENTS, CONTENTS, CONTENTS) as made:
        yield made


def urls(webs):
    return [web.url() for web in webs]


async def whole(source):
    """Read the file in pieces."""
    reads = [source.read(at, min(10_000, SIZE - at)) for at in range(0, SIZE, 10_000)]
    return b"".join(await asyncio.gather(*reads))


async def test_while_all_is_well_the_others_are_not_asked(three, make):
    source = await make(*urls(three))
    assert await whole(source) == CONTENTS
    assert [bool(web.asked) for web in three] == [True, False, False]


async def test_a_mirror_is_compared_before_its_first_byte_is_used(three, make):
    source = await make(*urls(three))
    three[0].always = status("503 Busy")
    assert await source.read(0, 1000) == CONTENTS[:1000]
    assert [asked.range for asked in three[1].asked] == [
        f"bytes={SIZE - TAIL}-{SIZE - 1}",
        "bytes=0-999",
    ]
    assert await source.read(5000, 1000) == CONTENTS[5000:6000]
    assert len(three[1].asked) == 3, "once"


async def test_another_mirror_is_asked_without_waiting(three, make):
    source = await make(*urls(three))
    three[0].script = [status("503 Busy", Retry_After="3600")] * 2
    async with asyncio.timeout(30):
        assert await whole(source) == CONTENTS
    assert len(three[0].asked) <= 1 + 4, "it is left alone after those that were under way"


async def test_a_body_that_breaks_goes_on_at_another_mirror_from_there(three, make):
    source = await make(*urls(three[:2]))
    three[0].script = [broken_off(1000)]
    three[0].always = status("500 Oops")
    assert await source.read(0, 5000) == CONTENTS[:5000]
    assert three[1].asked[-1].range == "bytes=1000-4999"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (STALE, f"its last {TAIL} bytes differ"),
        (CONTENTS[:-8], "it has 299992 bytes, not 300000"),
        (CONTENTS + bytes(8), "it has 300008 bytes, not 300000"),
        (b"", "it has 0 bytes"),
    ],
)
async def test_other_content_is_excluded_with_one_warning(make, caplog, content, told):
    async with servers(CONTENTS, content, CONTENTS) as webs:
        source = await make(*urls(webs))
        webs[0].always = status("503 Busy")
        assert await whole(source) == CONTENTS
        assert len(webs[1].asked) == 1
        warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert told in warnings[0].getMessage()
        assert webs[1].url() in warnings[0].getMessage()


@pytest.mark.parametrize("line", ["404 Not Found", "403 Forbidden", "410 Gone"])
async def test_one_that_has_it_not_is_excluded_and_the_others_serve(three, make, caplog, line):
    source = await make(*urls(three))
    three[0].always = status(line)
    assert await whole(source) == CONTENTS
    assert len(three[0].asked) <= 1 + 4
    assert [r.levelname for r in caplog.records if r.levelno >= logging.WARNING] == ["WARNING"]
    assert line in source.status()["mirror_1_state"]
    assert source.status()["mirror_2_state"] == "ok"
    assert source.status()["mirror_3_state"] == "unused"


async def test_a_mirror_replaced_while_open_is_excluded(three, make, caplog):
    source = await make(*urls(three[:2]))
    three[0].etag, three[0].contents = '"two"', bytes(SIZE)
    assert await whole(source) == CONTENTS
    assert "changed while open" in caplog.text


async def test_a_mirror_without_ranges_is_not_used_where_others_know_them(three, make):
    three[0].always = lambda me, _: me.head("200 OK", SIZE) + me.contents
    three[1].always = three[0].always
    source = await make(*urls(three))
    assert await whole(source) == CONTENTS
    assert len(three[2].asked) > 1


async def test_where_none_knows_ranges_one_is_downloaded(three, make):
    for web in three:
        web.always = lambda me, _: me.head("200 OK", SIZE) + me.contents
    source = await make(*urls(three))
    assert await whole(source) == CONTENTS


async def test_a_server_without_suffix_ranges_is_compared_with_all_the_same(make, caplog):
    async with servers(CONTENTS, STALE, CONTENTS) as webs:
        webs[0].script = [status("416 Range Not Satisfiable")]
        source = await make(*urls(webs))
        assert [asked.range for asked in webs[0].asked] == [
            f"bytes=-{TAIL}", "bytes=0-0", f"bytes={SIZE - TAIL}-{SIZE - 1}",
        ]  # fmt: skip
        webs[0].always = status("503 Busy")
        assert await whole(source) == CONTENTS
        assert "other content" in caplog.text


async def test_opening_goes_on_to_the_next_mirror(three, make):
    three[0].always = status("404 Not Found")
    await three[1].stop()
    source = await make(*urls(three))
    assert await whole(source) == CONTENTS
    assert three[2].asked


async def test_opening_overtakes_a_mirror_that_is_silent(three, make):
    three[0].always = silent
    async with asyncio.timeout(20):  # its time-out alone would be 30 s
        source = await make(*urls(three[:2]))
    assert await whole(source) == CONTENTS
    assert len(three[0].asked) == 1, "it is not asked for more"


async def test_one_that_answered_the_opening_too_late_is_compared_all_the_same(make, monkeypatch):
    monkeypatch.setattr(httpopening, "_STAGGER", 0.05)
    both = asyncio.Event()
    async with servers(CONTENTS, STALE) as (one, two):
        one.script, two.script = [held(both)], [held(both)]
        opening = asyncio.create_task(make(one.url(), two.url()))
        async with asyncio.timeout(20):
            while not two.asked:  # noqa: ASYNC110 -- a plain list
                await asyncio.sleep(0.01)
        both.set()
        source = await opening
        first, other = (one, two) if source.identity.startswith(one.url()) else (two, one)
        first.always = status("404 Not Found")
        with pytest.raises(DeviceError, match="other content"):
            await source.read(0, 100)
        assert [asked.range for asked in other.asked[1:]] == [f"bytes={SIZE - TAIL}-{SIZE - 1}"]


async def test_when_every_mirror_fails_for_good_the_error_names_each(three, make):
    source = await make(*urls(three))
    for web in three:
        web.always = status("404 Not Found")
    with pytest.raises(DeviceError, match="no mirror serves the file") as caught:
        await source.read(0, 100)
    assert all(web.url() in str(caught.value) for web in three)
    three[2].always = None
    assert await source.read(0, 100) == CONTENTS[:100], "they are given another chance"


async def test_when_every_mirror_is_busy_the_read_fails_in_time(three, make):
    source = await make(*urls(three), retry_for="300ms")
    for web in three:
        web.always = status("503 Busy")
    with pytest.raises(DeviceError, match="503 Busy"):
        await source.read(0, 100)


async def test_a_mirror_that_is_not_there_is_no_error_at_opening_while_another_is(three, make):
    await three[0].stop()
    source = await make(*urls(three[:2]))
    assert await whole(source) == CONTENTS


async def test_none_there_is_an_error_at_once(three, make):
    for web in three:
        await web.stop()
    with pytest.raises(DeviceError, match="no mirror serves the file"):
        await make(*urls(three))


def metalink(webs, *, size=SIZE, sha256=None):
    told = f'<hash type="sha-256">{sha256}</hash>' if sha256 else ""
    places = "".join(
        f'<url priority="{number}">{web.url()}</url>' for number, web in enumerate(webs, 1)
    )
    return (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink">'
        f'<file name="disk.img"><size>{size}</size>{told}{places}</file></metalink>'
    ).encode()


async def test_a_metalink_names_the_mirrors(three, make, tmp_path):
    path = tmp_path / "disk.meta4"
    path.write_bytes(metalink(three))
    three[0].always = status("404 Not Found")
    source = await make(metalink=str(path))
    assert await whole(source) == CONTENTS
    assert [bool(web.asked) for web in three] == [True, True, False]


async def test_a_metalink_is_fetched_and_its_mirrors_get_no_credentials(three, make, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    answer = metalink(three[1:])
    three[0].always = lambda me, _: me.head("200 OK", len(answer)) + answer
    three[0].script = [status("503 Busy")]
    source = await make(metalink=three[0].url("disk.meta4"), bearer_file=str(tmp_path / "token"))
    assert await whole(source) == CONTENTS
    assert all(a.headers["authorization"] == "Bearer secret" for a in three[0].asked)
    assert three[1].asked
    assert all("authorization" not in asked.headers for asked in three[1].asked)


async def test_a_mirror_of_another_size_than_the_metalink_says_is_not_used(three, make, tmp_path):
    path = tmp_path / "disk.meta4"
    path.write_bytes(metalink(three[:2], size=HALF))
    three[1].contents = CONTENTS[:HALF]
    source = await make(metalink=str(path))
    assert source.info.size == HALF


async def test_its_hash_is_held_against_the_file(three, make, tmp_path):
    path = tmp_path / "disk.meta4"
    path.write_bytes(metalink(three, sha256="ab" * 32))
    source = await make(metalink=str(path), verify="background")
    assert "verification" in source.status()
    assert "ab" * 32 not in source.identity
    with pytest.raises(ConfigError, match="the metalink says"):
        await make(metalink=str(path), sha256="cd" * 32)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "no XML"),
        (metalink([]), "no http"),
        (metalink([]).replace(b"</file>", b'</file><file name="b"/>'), "metalink-name="),
    ],
)
async def test_a_metalink_that_will_not_do_is_the_operators_mistake(make, tmp_path, text, told):
    path = tmp_path / "disk.meta4"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=told):
        await make(metalink=str(path))


def test_no_address_at_all_is_told():
    with pytest.raises(ConfigError, match="needs a URL"):
        HttpSource(HttpSource.Params())
