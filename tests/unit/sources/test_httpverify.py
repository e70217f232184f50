"""The whole file held against its hash."""

import asyncio
import hashlib
import logging

import pytest

from httpsources import CONTENTS, SIZE
from nbdserve.build import open_chain
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.spec import ExportSpec, parse_layer, parse_source

HASH = hashlib.sha256(CONTENTS).hexdigest()
WRONG = "ab" * 32


async def ended(source):
    async with asyncio.timeout(30):
        while source.status()["verification"] == "running":  # noqa: ASYNC110 -- a plain word
            await asyncio.sleep(0.01)
    return source.status()["verification"]


async def test_a_hash_that_was_verified_names_the_content_whatever_its_url(web, make):
    web.always = lambda me, _: me.head("200 OK", SIZE) + me.contents
    one, two = await make(web.url("a"), sha256=HASH), await make(web.url("b"), sha256=HASH.upper())
    assert one.identity == two.identity == f"sha256:{HASH}"


async def test_a_hash_that_was_not_verified_names_nothing(web, make):
    source = await make(web.url(), sha256=HASH, verify="background")
    told = f'{web.url()} "one" {SIZE}'
    assert source.identity == told
    assert await ended(source) == "ok"
    assert source.identity == told, "what was kept under it would be lost"


async def test_where_no_version_is_told_the_hash_stands_for_it(web, make):
    web.etag = web.last_modified = None
    assert (await make(web.url())).identity is None
    assert (await make(web.url(), sha256=HASH)).identity == f"{web.url()} sha256:{HASH} {SIZE}"


async def test_a_cache_of_another_file_is_not_served_for_the_one_of_the_hash(web, tmp_path):
    cache = parse_layer(f"cache:path={tmp_path},size=1G")
    for held in (CONTENTS[::-1], CONTENTS):  # of one size; what was claimed is true of the second
        web.contents, web.etag = held, f'"{held[0]}"'
        source = parse_source(["http", web.url(), f"sha256={HASH}"])
        chain = await open_chain(ExportSpec(source, (cache,)))
        assert await chain.outermost.read(0, SIZE) == held
        await chain.close()


async def test_without_a_hash_the_version_and_the_address_name_it(web, make):
    source = await make(web.url())
    assert source.identity == f'{web.url()} "one" {SIZE}'


async def test_nothing_is_fetched_twice_unless_asked_for(web, make):
    source = await make(web.url(), sha256=WRONG)
    assert await source.read(0, 100) == CONTENTS[:100]
    assert "verification" not in source.status()
    assert len(web.asked) == 2


async def test_the_right_file_is_found_right(web, make):
    source = await make(web.url(), sha256=HASH, verify="background")
    assert await ended(source) == "ok"
    assert source.status()["verified_bytes"] == SIZE
    assert await source.read(0, 100) == CONTENTS[:100]


async def test_after_a_mismatch_every_read_fails(web, make, caplog):
    source = await make(web.url(), sha256=WRONG, verify="background")
    assert await ended(source) == "mismatch"
    for offset in (0, SIZE - 100):
        with pytest.raises(DeviceError, match=f"sha256 is {HASH}, not {WRONG}"):
            await source.read(offset, 100)
        with pytest.raises(DeviceError, match="sha256"):
            [piece async for piece in source.stream(offset, 100)]
    assert not source.read_into_nowait(SIZE - 100, memoryview(bytearray(100)))
    assert source.identity is None
    assert [r.levelno for r in caplog.records if r.levelno > logging.WARNING] == [logging.ERROR]


async def test_a_spent_budget_ends_the_pass_and_not_the_reads(web, make):
    source = await make(web.url(), sha256=HASH, verify="background", max_bytes=200_000)
    assert await ended(source) == "stopped"
    assert await source.read(0, 100) == CONTENTS[:100]


async def test_a_downloaded_file_is_verified_before_it_is_served(web, make):
    web.always = lambda me, _: me.head("200 OK", SIZE) + me.contents
    source = await make(web.url(), sha256=HASH)
    assert await source.read(0, SIZE) == CONTENTS
    with pytest.raises(DeviceError, match=f"sha256 is {HASH}, not {WRONG}"):
        await make(web.url(), sha256=WRONG)


async def test_verifying_needs_a_hash(web, make):
    with pytest.raises(ConfigError, match="needs sha256="):
        await make(web.url(), verify="background")


async def test_what_is_no_hash_is_told(web, make):
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        await make(web.url(), sha256="beef")
