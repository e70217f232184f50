"""Chains whose origin is away: who may start without it, and how it comes back."""

import asyncio
import logging
from contextlib import aclosing

import pytest

from nbdserve.absent import Absent, longest_pause
from nbdserve.build import ChainPool, open_chain
from nbdserve.chainplan import plan
from nbdserve.device import Capability
from nbdserve.errors import CorruptDataError, DeviceError, ReadOnlyError, SourceUnavailableError
from nbdserve.spec import ExportSpec, parse_layer, parse_source
from nbdserve.testing.faults import Gate
from scripted import SCRIPTS, chain_of, installed

AWAY = SourceUnavailableError("s: no answer; check the network")


@pytest.fixture
def scripts(monkeypatch):
    with installed(monkeypatch) as found:
        yield found


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Origin:
    """A lower part that is away until it is told to be there."""

    def __init__(self):
        self.clock = Clock()
        self.tries = 0
        self.gate = Gate()
        self.gate.release()
        self.error = AWAY
        self.absent = Absent(self.open, AWAY, clock=self.clock)

    async def open(self):
        self.tries += 1
        await self.gate.enter()
        if self.error is not None:
            raise self.error
        return await open_chain(chain_of("s", read_only=False))

    def come_back(self):
        self.error = None
        self.clock.now += 60


@pytest.fixture
async def origin(scripts):
    made = Origin()
    yield made
    await made.absent.close()


# Starting without the origin


async def test_a_layer_that_survives_starts_without_what_lies_beneath(scripts, caplog):
    spec = chain_of("s", "selfish above", "keeper k", "l")
    scripts["s"].errors.append(AWAY)
    chain = await open_chain(spec)
    kinds = [type(device).__name__ for device in chain.devices]
    assert kinds == ["Absent", "KeeperLayer", "SelfishLayer"]
    assert scripts["l"].said == [], "what stands between is not built"
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "layer keeper starts without" in caplog.text
    assert "no answer" in caplog.text
    with pytest.raises(SourceUnavailableError, match="no answer"):
        await chain.outermost.read(0, 512)
    await chain.close()
    assert scripts["s"].said == ["open"]
    assert scripts["k"].said == ["open", "close"]


async def test_what_was_kept_is_served_and_the_rest_when_the_origin_is_back(
    scripts, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    clock = Clock()
    monkeypatch.setitem(Absent.__init__.__kwdefaults__, "clock", clock)
    spec = chain_of("s", "keeper k", "l")
    chain = await open_chain(spec)
    kept = await chain.outermost.read(0, 512)
    await chain.close()
    scripts["s"].errors.append(AWAY)
    chain = await open_chain(spec)
    assert await chain.outermost.read(0, 512) == kept
    with pytest.raises(SourceUnavailableError):
        await chain.outermost.read(512, 512)
    clock.now += 60
    assert await chain.outermost.read(512, 512) == kept
    assert isinstance(chain.devices[0], Absent)
    assert chain.devices[0].arrived is not None
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert "origin is back" in caplog.text
    await chain.close()
    assert scripts["l"].said == ["open", "close"] * 2
    assert scripts["s"].said == ["open", "close", "open", "open", "close"]


async def test_a_layer_with_enough_of_its_own_does_not_wait_for_a_silent_origin(scripts, caplog):
    spec, pool = chain_of("s", "keeper k", "l"), ChainPool(patience=0)
    chain = await open_chain(spec)
    kept = await chain.outermost.read(0, 512)
    await chain.close()
    scripts["s"].opening = Gate()
    async with asyncio.timeout(30):
        chain = await pool.open(spec)
    assert await chain.outermost.read(0, 512) == kept
    assert isinstance(chain.devices[0], Absent)
    assert "starts without what lies beneath it: no answer within 0 s" in caplog.text
    await chain.close()


async def test_a_layer_that_has_nothing_yet_waits_for_a_slow_origin(scripts):
    spec, pool = chain_of("s", "keeper k"), ChainPool(patience=0)
    scripts["s"].opening = Gate()
    opening = asyncio.create_task(pool.open(spec))
    await scripts["s"].opening.waiting()
    scripts["s"].opening.release()
    chain = await opening
    assert [type(device).__name__ for device in chain.devices] == ["ScriptedSource", "KeeperLayer"]
    await chain.close()


@pytest.mark.parametrize("error", [CorruptDataError("bad"), DeviceError("no such file")])
async def test_any_other_error_is_one(scripts, error):
    spec = chain_of("s", "keeper k")
    scripts["s"].errors.append(error)
    with pytest.raises(DeviceError, match=str(error)):
        await open_chain(spec)
    assert scripts["k"].said == []


async def test_a_layer_that_does_not_survive_is_passed_over(scripts):
    spec = chain_of("s", "keeper outer", "l", "keeper inner")
    scripts["inner"].survives = False
    scripts["s"].errors.append(AWAY)
    chain = await open_chain(spec)
    assert [type(device).__name__ for device in chain.devices] == ["Absent", "KeeperLayer"]
    assert (scripts["outer"].said, scripts["inner"].said) == (["open"], [])
    await chain.close()


async def test_where_none_survives_the_chain_cannot_be_opened(scripts):
    spec = chain_of("s", "keeper k", "l")
    scripts["k"].survives = False
    scripts["s"].errors.append(AWAY)
    with pytest.raises(SourceUnavailableError):
        await open_chain(spec)


async def test_an_origin_that_goes_away_while_a_layer_reads_its_index_is_absent_too(scripts):
    spec = chain_of("s", "keeper k", "l")
    scripts["l"].errors.append(AWAY)
    chain = await open_chain(spec)
    assert isinstance(chain.devices[0], Absent)
    assert scripts["s"].said == ["open", "close"], "nothing of the lower part is left open"
    await chain.close()


async def test_a_survivor_that_has_nothing_to_serve_ends_the_chain_or_leaves_it_to_an_outer_one(
    scripts,
):
    spec = chain_of("s", "keeper outer", "keeper inner")
    scripts["s"].errors.append(AWAY)
    scripts["inner"].errors.append(SourceUnavailableError("nothing kept"))
    chain = await open_chain(spec)
    assert [type(device).__name__ for device in chain.devices] == ["Absent", "KeeperLayer"]
    await chain.close()


async def test_chains_that_share_wait_for_one_origin(scripts, caplog):
    pool = ChainPool()
    specs = [chain_of("s", f"selfish {name}", "keeper k") for name in "ab"]
    scripts["s"].errors.append(AWAY)
    chains = await asyncio.gather(*map(pool.open, specs))
    assert chains[0].devices[0] is chains[1].devices[0]
    assert len(caplog.records) == 1
    for chain in chains:
        await chain.close()
    assert pool._shares == {}


# Coming back


async def test_between_tries_readers_get_an_error_at_once(origin):
    for _ in range(3):
        with pytest.raises(SourceUnavailableError, match=r"no answer.*not tried again for"):
            await origin.absent.read(0, 512)
    assert origin.tries == 0
    origin.clock.now += 60
    for _ in range(3):
        with pytest.raises(SourceUnavailableError, match="not tried again for"):
            await origin.absent.read(0, 512)
    assert origin.tries == 1


def test_pauses_grow_to_half_a_minute():
    assert [longest_pause(failed) for failed in (1, 2, 3, 4, 5, 100)] == [2, 4, 8, 16, 30, 30]


async def test_each_failure_makes_the_next_try_wait_within_its_bounds(origin):
    for failed in range(2, 9):
        origin.clock.now = origin.absent._next
        with pytest.raises(SourceUnavailableError):
            await origin.absent.arrive()
        assert origin.tries == failed - 1
        assert 1 <= origin.absent._next - origin.clock.now <= longest_pause(failed)


async def test_many_readers_wait_for_one_try(origin):
    origin.come_back()
    gate = origin.gate = Gate()
    reads = [asyncio.ensure_future(origin.absent.read(at, 512)) for at in range(0, 5120, 512)]
    await gate.waiting(1)
    reads[0].cancel()
    await asyncio.wait((reads[0],))
    gate.release()
    assert await asyncio.gather(*reads[1:]) == [b"\x55" * 512] * 9
    assert origin.tries == 1
    assert SCRIPTS["s"].said == ["open"]


@pytest.mark.parametrize("error", [CorruptDataError("damaged"), OSError(5, "no disk")])
async def test_whatever_it_fails_with_is_told(origin, error):
    origin.come_back()
    origin.error = error
    with pytest.raises(SourceUnavailableError, match=r"damaged|no disk"):
        await origin.absent.read(0, 512)


async def test_a_bug_is_told_to_the_reader_and_put_off_as_well(origin):
    origin.come_back()
    origin.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await origin.absent.read(0, 512)
    with pytest.raises(SourceUnavailableError):
        await origin.absent.read(0, 512)
    assert origin.tries == 1


async def test_nothing_is_known_of_it_until_it_arrives(origin):
    absent = origin.absent
    assert absent.arrived is None
    assert absent.identity is None
    assert absent.file_range(0, 512) is None
    assert not absent.read_into_nowait(0, memoryview(bytearray(512)))
    with pytest.raises(SourceUnavailableError):
        _ = absent.info
    for call in (absent.extents(0, 512), absent.cache(0, 512), anext(absent.stream(0, 512))):
        with pytest.raises(SourceUnavailableError):
            await call
    origin.come_back()
    async with aclosing(absent.stream(0, 512)) as pieces:
        assert b"".join([bytes(piece) async for piece in pieces]) == b"\x55" * 512
    assert absent.identity == "all 85"
    assert absent.arrived is await absent.arrive()
    assert absent.arrived.info.can & Capability.WRITE
    assert not absent.info.can & Capability.WRITES
    with pytest.raises(ReadOnlyError):
        await absent.write(0, memoryview(bytes(512)), fua=False)


async def test_closing_ends_a_try_and_what_it_opened(scripts):
    first = Origin()
    first.come_back()
    chain_of("s")
    gate = scripts["s"].opening = Gate()
    reading = asyncio.ensure_future(first.absent.read(0, 512))
    await gate.waiting(1)
    await first.absent.close()
    with pytest.raises(SourceUnavailableError):
        await reading
    gate.release()
    second = Origin()
    second.come_back()
    await second.absent.arrive()
    await second.absent.close()
    assert scripts["s"].said == ["open", "open", "close"]


# What lies beneath, in words


def beneath(source, *layers):
    spec = ExportSpec(parse_source(source), tuple(map(parse_layer, layers)))
    return plan(spec)[-1].beneath


URL = "https://example.org/disk.img.xz"


def test_what_lies_beneath_is_told_source_first_without_defaults():
    told = beneath(["http", URL, "timeout=10s", "header=A: 1", "header=B: 2"], "log", "xz:cache=1M")
    assert told == f"http header='A: 1' header='B: 2' timeout='10s' url='{URL}'\nxz cache='1M'"
    assert beneath(["pattern", "1M"]) == ""


def test_it_is_the_same_however_it_was_written():
    assert beneath(["http", URL], "log", "xz:cache=1M") == beneath(
        ["http", f"url={URL}", "connections=8"], "log", "xz:cache=1024K,memlimit=256M"
    )


def test_it_tells_other_contents_apart(monkeypatch, tmp_path):
    here = beneath(["file", "disk.img"], "log")
    monkeypatch.chdir(tmp_path)
    there = beneath(["file", "disk.img"], "log")
    assert there == f"file path='{tmp_path}/disk.img'" != here
    told = {beneath(["http", URL], "log", layer) for layer in ("xz", "slice:offset=1", "stats")}
    assert len(told) == 3


async def test_a_layer_knows_what_lies_beneath_when_it_is_opened(scripts):
    spec = chain_of("s", "keeper k", "l")
    chain = await open_chain(spec)
    assert chain.outermost.beneath == "scripted name='s'\nscripted name='l'"
    await chain.close()
