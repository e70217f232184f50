"""Chains that begin alike: what they share, for how long, and who is told of a failure."""

import asyncio

import pytest

from nbdserve.build import ChainPool
from nbdserve.chainplan import plan
from nbdserve.errors import DeviceError
from nbdserve.spec import ElementSpec, ExportSpec, parse_layer, parse_source
from nbdserve.testing.faults import Gate
from scripted import chain_of, installed


@pytest.fixture
def scripts(monkeypatch):
    with installed(monkeypatch) as found:
        yield found


@pytest.fixture
def pool():
    return ChainPool()


async def test_chains_that_begin_alike_share_what_they_begin_with(pool, scripts):
    first = await pool.open(chain_of("s", "selfish a", "l"))
    second = await pool.open(chain_of("s", "selfish b", "l"))
    assert first.devices[:2] == second.devices[:2]
    assert first.outermost is not second.outermost
    await first.close()
    assert scripts["a"].said == ["open", "close"]
    assert scripts["l"].said == scripts["s"].said == ["open"]
    await second.close()
    assert scripts["l"].said == scripts["s"].said == ["open", "close"]


async def test_one_may_end_where_the_other_goes_on(pool, scripts):
    short = await pool.open(chain_of("s"))
    long = await pool.open(chain_of("s", "l"))
    assert short.outermost is long.devices[0]
    await long.close()
    assert (scripts["l"].said, scripts["s"].said) == (["open", "close"], ["open"])
    await short.close()
    assert scripts["s"].said == ["open", "close"]


async def test_what_differs_is_opened_for_each(pool, scripts):
    first = await pool.open(chain_of("s", "m", "l"))
    second = await pool.open(chain_of("s", "m", "other"))
    third = await pool.open(chain_of("s2", "m", "l"))
    assert first.devices[0] is second.devices[0] is not third.devices[0]
    assert first.devices[1] is not second.devices[1]
    for chain in (first, second, third):
        await chain.close()
    assert scripts["s2"].said == ["open", "close"]
    assert scripts["l"].said == ["open", "open", "close", "close"]


async def test_what_may_be_written_is_not_shared(pool, scripts):
    first = await pool.open(chain_of("s", read_only=False))
    second = await pool.open(chain_of("s", read_only=False))
    third = await pool.open(chain_of("s", read_only=True))
    assert len({id(chain.outermost) for chain in (first, second, third)}) == 3
    assert [chain.outermost.read_only for chain in (first, second, third)] == [False, False, True]
    for chain in (first, second, third):
        await chain.close()


async def test_nothing_above_an_element_that_does_not_share_is_shared(pool, scripts):
    first = await pool.open(chain_of("s", "l", "selfish a"))
    second = await pool.open(chain_of("s", "l", "selfish a"))
    assert first.devices[0] is second.devices[0]
    assert first.devices[1] is not second.devices[1]
    assert first.devices[2] is not second.devices[2]
    await first.close()
    await second.close()


async def test_chains_opened_at_once_open_their_common_part_once(pool, scripts):
    gate = Gate()
    specs = [chain_of("s", f"selfish {name}", "l") for name in "abc"]
    scripts["s"].opening = gate
    opening = [asyncio.ensure_future(pool.open(spec)) for spec in specs]
    await gate.waiting(1)
    gate.release()
    chains = await asyncio.gather(*opening)
    assert scripts["l"].said == scripts["s"].said == ["open"]
    for chain in chains:
        await chain.close()
    assert scripts["s"].said == ["open", "close"]


async def test_a_failure_is_told_to_all_and_then_tried_anew(pool, scripts):
    gate = Gate()
    specs = [chain_of("s", f"selfish {name}", "l") for name in "ab"]
    scripts["s"].opening = gate
    scripts["l"].errors.append(DeviceError("no index"))
    opening = [asyncio.ensure_future(pool.open(spec)) for spec in specs]
    await gate.waiting(1)
    gate.release()
    for outcome in await asyncio.gather(*opening, return_exceptions=True):
        assert isinstance(outcome, DeviceError)
        assert str(outcome) == "no index"
    assert scripts["s"].said == ["open", "close"]
    assert scripts["l"].said == ["open"]
    assert scripts["a"].said == scripts["b"].said == []
    chain = await pool.open(specs[0])
    await chain.close()
    assert scripts["s"].said == ["open", "close"] * 2


async def test_who_gives_up_waiting_does_not_end_it_for_the_others(pool, scripts):
    gate = Gate()
    specs = [chain_of("s", f"selfish {name}", "l") for name in "ab"]
    scripts["s"].opening = gate
    first, second = (asyncio.ensure_future(pool.open(spec)) for spec in specs)
    await gate.waiting(1)
    first.cancel()
    await asyncio.wait((first,))
    assert first.cancelled()
    gate.release()
    chain = await second
    assert scripts["s"].said == ["open"]
    await chain.close()
    assert scripts["s"].said == ["open", "close"]


async def test_the_last_one_to_give_up_ends_it_and_leaves_nothing_open(pool, scripts):
    gate = Gate()
    specs = [chain_of("s", f"selfish {name}", "l") for name in "ab"]
    scripts["l"].opening = gate
    opening = [asyncio.ensure_future(pool.open(spec)) for spec in specs]
    await gate.waiting(1)
    for one in opening:
        one.cancel()
    await asyncio.wait(opening)
    assert scripts["l"].said == ["open"]
    assert scripts["s"].said == ["open", "close"]
    gate.release()
    chain = await pool.open(specs[0])
    await chain.close()
    assert scripts["l"].said == ["open", "open", "close"]


async def test_what_is_being_closed_is_opened_again_only_when_it_is_closed(pool, scripts):
    spec = chain_of("l", "selfish a")
    first = await pool.open(spec)
    gate = scripts["l"].closing = Gate()
    closing = asyncio.ensure_future(first.close())
    await gate.waiting(1)
    again = [asyncio.ensure_future(pool.open(spec)) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert scripts["l"].said == ["open"]
    gate.release()
    await closing
    chains = await asyncio.gather(*again)
    assert scripts["l"].said == ["open", "close", "open"]
    for chain in chains:
        await chain.close()


async def test_a_cancelled_close_goes_on_to_its_end(pool, scripts):
    chain = await pool.open(chain_of("s", "l"))
    gate = scripts["l"].closing = Gate()
    closing = asyncio.ensure_future(chain.close())
    await gate.waiting(1)
    closing.cancel()
    await asyncio.wait((closing,))
    gate.release()
    again = await pool.open(chain_of("s", "l"))
    assert scripts["s"].said == ["open", "close", "open"]
    await again.close()


async def test_a_pool_remembers_nothing_of_what_was_closed(pool, scripts):
    for name in "abc":
        await (await pool.open(chain_of(f"s{name}", f"l{name}"))).close()
    spec = chain_of("s", "m")
    scripts["m"].errors.append(DeviceError("no"))
    with pytest.raises(DeviceError):
        await pool.open(spec)
    assert pool._shares == {}


URL = ["http", "http://127.0.0.1/disk.img.xz"]


@pytest.mark.parametrize(
    ("source", "layers", "shared"),
    [
        (URL, ["cow", "xz"], [True, True, False]),
        (URL, ["cow", "cache:size=1M", "xz"], [True, True, True, False]),
        # nothing can be written through what never takes a write, whatever the export says
        (URL, ["cache:size=1M", "slice", "xz"], [True, True, True, True]),
        (URL, ["xz", "log"], [True, False, False]),
        (["file", "/a"], [], [False]),
        (["file", "/a"], ["cache:size=1M"], [False, False]),
        (["file", "/a"], ["cache:size=1M", "readonly", "slice"], [True, True, True, True]),
        (["file", "/a"], ["cow:path=/b", "xz"], [True, True, False]),
        (["memory", "1M"], ["cow"], [False, False]),
        (["null", "1M"], ["cow"], [True, False]),
        (["pattern", "1M"], ["stats"], [True, False]),
        (["data", "a"], [], [True]),
    ],
)
def test_which_elements_chains_share(source, layers, shared):
    spec = ExportSpec(parse_source(source), tuple(map(parse_layer, layers)))
    assert [step.shared for step in plan(spec)] == shared
    steps = plan(ExportSpec(spec.source, spec.layers, read_only=True))
    assert all(step.read_only for step in steps)


def test_equal_parameters_are_one_key_however_they_are_written():
    written = [("size", "1M"), ("size", "1024K"), ("size", 1 << 20)]
    keys = {plan(ExportSpec(ElementSpec("null", (given,))))[0].key for given in written}
    assert len(keys) == 1
