"""The whole file held against its hash."""

import asyncio
import hashlib
import logging

import pytest

from httpsources import CONTENTS, SIZE
from nbdserve.errors import ConfigError, DeviceError

HASH = hashlib.sha256(CONTENTS).hexdigest()
WRONG = "ab" * 32


async def ended(source):
    async with asyncio.timeout(30):
        while source.status()["verification"] == "running":  # noqa: ASYNC110 -- a plain word
            await asyncio.sleep(0.01)
    return source.status()["verification"]


async def test_the_hash_names_the_content_whatever_its_url(web, make):
    one, two = await make(web.url("a"), sha256=HASH), await make(web.url("b"), sha256=HASH.upper())
    assert one.identity == two.identity == f"sha256:{HASH}"


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
