"""The parts of `make bench-remote` that figures depend on and that need no machine."""

import asyncio

import pytest
from remote.boot import parse_reads
from remote.contenders import CONTENDERS, Job
from remote.layout import Block, Layout, parse_blocks
from remote.limits import Machine, limit
from remote.plan import LOCAL, Row, SelectionError, plan
from remote.table import Figures, lines
from remote.trace import RECORDED, Read, fit, load, replay
from remote.trial import Sample
from remote.web import parse_hits

LAYOUT = Layout(
    1000,
    (Block(0, 4096, 12, 300), Block(4096, 4096, 312, 10), Block(8192, 4096, 322, 600)),
)

LISTING = """name\tz.xz
file\t1\t2\t1044\t4194304\t0.000\tCRC64\t0
stream\t1\t4\t0\t0\t1044\t4194304\t0.000\tCRC64\t0
block\t1\t1\t1\t12\t0\t248\t1048576\t0.000\tCRC64
block\t1\t2\t2\t260\t1048576\t252\t3145728\t0.000\tCRC64
totals\t1\t4\t1044\t4194304\t0.000\tCRC64\t0\t1
"""


def test_blocks_are_read_off_xz():
    assert parse_blocks(LISTING) == (
        Block(start=0, size=1048576, offset=12, length=248),
        Block(start=1048576, size=3145728, offset=260, length=252),
    )


@pytest.mark.parametrize(
    ("ranges", "indexes"),
    [([], []), ([(0, 1)], [0]), ([(4095, 2)], [0, 1]), ([(8191, 1), (8192, 1)], [1, 2]),
     ([(0, 12288)], [0, 1, 2]), ([(4096, 4096), (5000, 1)], [1])],
)  # fmt: skip
def test_touched_blocks_are_told_once_each(ranges, indexes):
    assert LAYOUT.touched(ranges) == [LAYOUT.blocks[index] for index in indexes]


def test_the_middle_is_in_a_block_of_data():
    assert LAYOUT.middle() == (LAYOUT.blocks[0], 2048)


@pytest.mark.parametrize(
    ("work", "needs", "seconds"),
    [
        ("open", [], 2 * 0.04),
        ("first", [0], 3 * 0.04),
        ("copy", [0, 1, 2], 10.0),  # by the link: 1000 bytes at 91
        ("middle", [2], 600 / 2 / 91 + 0.04),
        ("readers", [2], 600 / 91 + 0.04),
    ],
)
def test_the_link_limits_a_slow_link(work, needs, seconds):
    machine = Machine(rate=910 / 10, rtt=0.04, decode=1.0, cores=2)
    chosen = [LAYOUT.blocks[index] for index in needs]
    assert limit(work, machine, LAYOUT, chosen) == pytest.approx(seconds)


@pytest.mark.parametrize(("needs", "share"), [([0, 1, 2], 910 / 2), ([2], 600)])
def test_cores_limit_a_fast_link_a_block_each(needs, share):
    machine = Machine(rate=1e9, rtt=0.0, decode=8.0, cores=2)
    chosen = [LAYOUT.blocks[index] for index in needs]
    assert limit("copy", machine, LAYOUT, chosen) == pytest.approx(8.0 * share / 1000)


def test_names_of_one_kind_add_up_and_kinds_narrow_down():
    rows = plan(["far", "copy", "first", "16M", "nbdkit"])
    assert rows == [Row("far", "16M", "first", "nbdkit"), Row("far", "16M", "copy", "nbdkit")]


def test_a_boot_brings_the_local_file_along_first():
    rows = plan(["far", "boot", "16M", "nbdserve"])
    assert rows == [LOCAL, Row("far", "16M", "boot", "nbdserve")]


def test_what_is_slow_or_unusual_waits_to_be_named():
    usual = plan([])
    assert not any(row.image == "raw" and row.link == "far" for row in usual)
    assert not any(row.contender == "nbdkit-importer" for row in usual)
    assert plan(["far", "raw", "convert", "qemu-url"]) == [Row("far", "raw", "convert", "qemu-url")]
    assert plan(["loop", "16M", "open", "nbdkit-importer"])


def test_every_row_is_one_that_its_contender_can_do():
    for row in plan([]):
        if row == LOCAL:
            continue
        contender = CONTENDERS[row.contender]
        assert contender.serves or row.work in {"copy", "convert"}
        assert contender.persistent == (row.work in {"again", "gone"})


@pytest.mark.parametrize("words", [["fra"], ["copy", "qemu-url", "16M"]])
def test_names_that_select_nothing_are_told(words):
    with pytest.raises(SelectionError, match="--only"):
        plan(words)


def test_the_recorded_boot_fits_its_image_and_smaller_ones():
    reads = load(RECORDED)
    assert len(reads) == 4619
    assert fit(reads, 3 << 30) == reads
    small = fit(reads, 512 << 20)
    assert all(read.offset % 512 == 0 for read in small)
    assert max(read.offset + read.length for read in small) <= 512 << 20


async def test_a_read_waits_for_those_answered_before_it_was_sent():
    reads = [Read(0, 1, 0.0, 2.0), Read(1, 1, 1.0, 5.0), Read(2, 1, 3.0, 4.0), Read(3, 1, 6.0, 7.0)]
    asked: dict[int, asyncio.Future[None]] = {}

    async def ask(offset, _):
        asked[offset] = asyncio.get_running_loop().create_future()
        await asked[offset]

    async def settled():
        for _ in range(20):
            await asyncio.sleep(0)
        return sorted(asked)

    async with asyncio.TaskGroup() as group:
        group.create_task(replay(reads, ask))
        assert await settled() == [0, 1]
        asked[0].set_result(None)
        assert await settled() == [0, 1, 2]
        asked[2].set_result(None)
        assert await settled() == [0, 1, 2]
        asked[1].set_result(None)
        assert await settled() == [0, 1, 2, 3]
        asked[3].set_result(None)


def test_a_log_tells_requests_bytes_and_when_they_began():
    log = "100.500|0.250|206|bytes=0-9|10\n100.400|0.200|206|bytes=5-|700\n"
    hits = parse_hits(log)
    assert (hits.requests, hits.sent) == (2, 710)
    assert hits.began == pytest.approx(100.2)
    assert parse_hits("").requests == 0


def test_a_guests_reads_are_read_off_qemu():
    line = "blk_co_preadv blk 0x5569 bs 0x5569 offset 512 bytes 4096 flags 0x0\n"
    assert parse_reads(line + "other thing\n") == [(512, 4096)]


def test_the_table_sets_rows_beside_nbdkit_and_drops_empty_columns():
    def row(contender):
        return Row("far", "16M", "copy", contender)

    found = {
        row("nbdkit"): Figures([Sample(20, 8, 2_000_000, 1, 1 << 20, None, 4, 1_000_000)], 10.0),
        row("nbdserve"): Figures([Sample(9, 4, 1_000_000, 1, 1 << 20, None, 4, 1_000_000),
                                  Sample(13, 4, 1_000_000), Sample(10, 4, 1_000_000, 1, 1 << 20,
                                                                   None, 4, 1_000_000)], 10.0),
        row("nbdkit-tuned"): Figures(failure="not tried: it is large"),
    }  # fmt: skip
    table = lines(found)
    assert [cell.strip() for cell in table[0].split("|")][1:-1] == [
        "link", "image", "work", "server", "time", "/limit", "/nbdkit", "requests", "MB", "a block",
        "/need", "CPU s", "RSS MiB",
    ]  # fmt: skip
    cells = [cell.strip() for cell in table[3].split("|")][1:-1]
    assert cells == ["far", "16M", "copy", "nbdserve", "10.00", "1.00", "0.50", "4", "1.0", "1.00",
                     "1.00", "1.0", "1"]  # fmt: skip
    assert table[-1] == "- far 16M copy nbdkit-tuned: not tried: it is large"


@pytest.mark.parametrize("contender", [c for c in CONTENDERS.values() if c.serves], ids=str)
def test_a_server_is_given_the_image_and_the_socket(contender, tmp_path):
    job = Job("http://10.77.0.1/x", tmp_path / "s", LAYOUT, True, tmp_path / "c", True)
    argv = contender.argv(job)
    assert {"http://10.77.0.1/x", str(tmp_path / "s")} <= set(argv)
