"""readahead with a real client over a slow source: what is asked beneath, by the log layer."""

import itertools
import re
import subprocess

import pytest

from daemon import daemon

READ = re.compile(r"\bread offset=(\d+) length=(\d+)")
MIB = 1 << 20
PIECE = 64 << 10


@pytest.fixture
def asked(tmp_path):
    """Give what a client's reads became beneath a readahead layer, each call with its offsets."""

    def ask(*commands):
        beneath = tmp_path / "beneath.log"
        layers = ["readahead", f"log:file={beneath}", "delay:read=20ms"]
        words = [word for layer in layers for word in ("--layer", layer)]
        with daemon(*words, "pattern", "64M") as server:
            done = subprocess.run(
                ["qemu-io", "-r", "-f", "raw", *commands, server.uri()],
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done
        found = READ.findall(beneath.read_text())
        return [(int(offset), int(length)) for offset, length in found]

    return ask


def test_a_reader_in_order_waits_for_few_of_its_reads(asked):
    """128 reads one after the other; what follows them was asked for before anybody wanted it."""
    end = 8 * MIB
    reads = asked(*(f"-cread {at} {PIECE}" for at in range(0, end, PIECE)))
    print(f"client reads={end // PIECE} reads beneath={len(reads)}")
    assert len(reads) < end // PIECE / 4
    assert max(offset + length for offset, length in reads) >= end + 4 * MIB
    read = sorted(reads)
    assert all(
        this + length <= following for (this, length), (following, _) in itertools.pairwise(read)
    ), "a byte was read twice"


def test_a_random_reader_costs_no_read_more(asked):
    places = [at * 7919 * 4096 % (64 * MIB) for at in range(64)]
    reads = asked(*(f"-cread {at} 4096" for at in places))
    assert sorted(reads) == sorted((at, 4096) for at in places)


def test_nbdcopy_with_four_connections_gets_every_byte(tmp_path):
    beneath = tmp_path / "beneath.log"
    copy = tmp_path / "copy.img"
    layers = ["readahead:size=16M", f"log:file={beneath}", "delay:read=5ms"]
    words = [word for layer in layers for word in ("--layer", layer)]
    with daemon(*words, "pattern", "32M") as server:
        subprocess.run(
            ["nbdcopy", "--connections=4", "--request-size=65536", server.uri(), copy],
            check=True, timeout=120,
        )  # fmt: skip
    whole = b"".join(at.to_bytes(8, "big") for at in range(0, 32 * MIB, 8))
    assert copy.read_bytes() == whole
    fetched = sum(int(length) for _, length in READ.findall(beneath.read_text()))
    print(f"fetched={fetched / (32 * MIB):.3f}x")
    assert fetched <= 1.1 * 32 * MIB
