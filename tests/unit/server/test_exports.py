"""Exports that come and go: what a client gets that asks at the wrong moment."""

import asyncio

import pytest

from nbdserve.build import ChainPool
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.server.exports import Added, Exports
from nbdserve.spec import ElementSpec, ExportSpec

SPEC = ExportSpec(ElementSpec("memory", (("", "1M"),)), name="disk")
MISSING = ExportSpec(ElementSpec("file", (("", "/no/such/file"),)), name="missing")
TABLE = {"name": "disk", "source": {"type": "memory", "size": "1M"}}


@pytest.fixture
def opening(monkeypatch):
    """Hold every opening up until the test lets it go on: (begun, go_on)."""
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()
    real = ChainPool.open

    async def held_up(pool, spec):
        begun.release()
        await go_on.wait()
        return await real(pool, spec)

    monkeypatch.setattr(ChainPool, "open", held_up)
    return begun, go_on


async def nobody(_):
    """End no clients."""


async def test_who_waits_for_an_export_that_is_removed_meanwhile_gets_none(opening):
    begun, go_on = opening
    exports = Exports([SPEC])
    (slot,) = exports.slots()
    first, second = (asyncio.create_task(exports.find("disk")) for _ in range(2))
    await begun.acquire()
    exports.forget(slot)
    go_on.set()
    closing = asyncio.create_task(exports.retire(slot, nobody))
    assert await first is None
    with pytest.raises(DeviceError, match="removed meanwhile"):
        await second
    await closing
    assert (slot.chain, slot.export) == (None, None)


async def test_an_addition_that_is_cancelled_leaves_nothing(opening):
    begun, _ = opening
    exports = Exports([])
    adding = asyncio.create_task(exports.add(SPEC, TABLE))
    await begun.acquire()
    assert exports.names() == ["disk"], "its name is taken from the start"
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert exports.names() == []


async def test_added_exports_are_opened_with_the_others_and_fail_alone():
    added = [Added(SPEC, TABLE), Added(MISSING, {})]
    exports = await Exports.open([], added=added, keep_going=False)
    try:
        assert exports.names() == ["disk", "missing"]
        assert (await exports.find("disk")).facts.size == 1 << 20
        assert "No such file" in exports.slots()[1].failure
    finally:
        await exports.close()


async def test_a_configured_export_that_fails_is_fatal_whatever_was_added():
    with pytest.raises(DeviceError, match="No such file"):
        await Exports.open([MISSING], added=[Added(SPEC, TABLE)], keep_going=False)


async def test_what_is_wrong_as_written_is_fatal():
    wrong = ExportSpec(ElementSpec("memory"), name="wrong")
    with pytest.raises(ConfigError):
        await Exports.open([wrong], keep_going=True)


async def test_a_name_that_is_configured_is_not_the_added_one():
    other = ExportSpec(ElementSpec("memory", (("", "2M"),)), name="disk")
    exports = await Exports.open([other], added=[Added(SPEC, TABLE)], keep_going=False)
    try:
        (slot,) = exports.slots()
        assert (slot.export.facts.size, slot.table) == (2 << 20, None)
    finally:
        await exports.close()
