"""Connections shared by sources of one host."""

import asyncio

from httpsources import CONTENTS, opened_sources
from nbdserve.sources import httppool


async def test_sources_of_a_host_share_its_connections(web, make):
    one = await make(web.url("one.img"))
    two = await make(web.url("two.img"))
    for source in (one, two, one, two):
        await source.read(0, 100)
    assert web.connections == 1


async def test_sources_of_a_host_share_its_gate(web, make):
    one = await make(web.url("one.img"), connections=8)
    two = await make(web.url("two.img"), connections=8)
    reads = [source.read(at, 1000) for at in range(0, 200_000, 10_000) for source in (one, two)]
    await asyncio.gather(*reads)
    assert web.connections <= 8


async def test_credentials_and_trust_keep_pools_apart(web, make, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    await make(web.url())
    await make(web.url(), bearer_file=str(tmp_path / "token"))
    await make(web.url(), insecure="yes")
    assert web.connections == 3
    assert len(httppool._pools) == 3


async def test_the_last_one_out_closes_the_connections(web):
    async with opened_sources() as make:
        one = await make(web.url("one.img"))
        async with opened_sources() as make_more:
            await make_more(web.url("two.img"))
        assert await one.read(0, 100) == CONTENTS[:100], "it is not the last"
    await asyncio.wait_for(web.idle.wait(), 30)
    assert not httppool._pools
