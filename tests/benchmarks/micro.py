"""The parts of the hot path, one by one, by pytest-benchmark: `make bench-micro`.

Each round is one batch of 64 requests, so a figure divided by 64 is the cost of a request. Runs are
kept under build/benchmarks, and each is compared with the one before it.
"""

import asyncio
import os
import subprocess
from itertools import count

import pytest

from nbdserve.build import open_chain
from nbdserve.device import Capability
from nbdserve.pagecache import is_resident
from nbdserve.protocol.constants import Command, TransmissionFlag
from nbdserve.protocol.messages import ExportFacts, Negotiated, ReplyMode, Request
from nbdserve.protocol.replies import replies_for
from nbdserve.protocol.requests import RequestDecoder, encode_request
from nbdserve.protocol.validation import refusal
from nbdserve.server.operations import read_reply
from nbdserve.spec import ExportSpec, parse_layer, parse_source

BATCH, BLOCK = 64, 4096
SIZE = 32 << 20
OFFSETS = [n * 2654435761 % (SIZE // BLOCK) * BLOCK for n in range(BATCH)]
READS = [Request(0, Command.READ, n, offset, BLOCK) for n, offset in enumerate(OFFSETS)]
FACTS = ExportFacts("", "", SIZE, TransmissionFlag.HAS_FLAGS, 1, 4096, SIZE)

CHAINS = {
    "memory": ([], ["memory", str(SIZE)]),
    "file": ([], ["file", "IMAGE"]),
    "slice": (["slice"], ["file", "IMAGE"]),
    "cow-unwritten": (["cow"], ["file", "IMAGE"]),
    "cow-written": (["cow"], ["file", "IMAGE"]),
    "cache-hit": (["cache:size=64M"], ["file", "IMAGE"]),
    "xz-hit": (["xz:cache=64M"], ["file", "PACKED"]),
    "stats": (["stats"], ["file", "IMAGE"]),
    "readonly": (["readonly"], ["file", "IMAGE"]),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("micro") / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    subprocess.run(["xz", "-0", "-k", "--block-size=4MiB", path], check=True)
    return path


@pytest.fixture
def runner():
    with asyncio.Runner() as made:
        yield made


@pytest.fixture
def device(request, runner, image):
    """The outermost device of a chain, with all of it at hand."""
    layers, source = CHAINS[request.param]
    words = [word.replace("IMAGE", str(image)).replace("PACKED", f"{image}.xz") for word in source]
    spec = ExportSpec(parse_source(words), tuple(map(parse_layer, layers)))
    chain = runner.run(open_chain(spec))
    outermost = chain.outermost

    async def warm():
        if request.param == "cow-written":
            for offset in range(0, SIZE, 1 << 20):
                await outermost.write(offset, memoryview(os.urandom(1 << 20)), fua=False)
        for offset in range(0, SIZE, 1 << 20):
            await outermost.read(offset, 1 << 20)

    runner.run(warm())
    yield outermost
    runner.run(chain.close())


@pytest.mark.parametrize("device", CHAINS, indirect=True)
def test_read_hot(benchmark, device):
    view = memoryview(bytearray(BLOCK))

    def batch():
        for offset in OFFSETS:
            assert device.read_into_nowait(offset, view)

    benchmark(batch)


@pytest.mark.parametrize("device", ["memory", "file", "slice", "cow-written"], indirect=True)
def test_write_hot(benchmark, runner, device):
    assert device.info.can & Capability.WRITE
    data = memoryview(os.urandom(BLOCK))

    async def batch():
        left = len(OFFSETS)
        done = asyncio.get_running_loop().create_future()

        def written(error):
            nonlocal left
            left -= 1
            if not left:
                done.set_result(error)

        for offset in OFFSETS:
            assert device.write_nowait(offset, data, fua=False, done=written)
        await done

    benchmark(lambda: runner.run(batch()))


@pytest.mark.parametrize("extended", [False, True])
def test_parse_reads(benchmark, extended):
    wire = b"".join(encode_request(each, extended=extended) for each in READS)
    decoder = RequestDecoder(lambda _: True, extended=extended)

    def batch():
        decoder.buffer()[: len(wire)] = wire
        assert len(decoder.received(len(wire))) == BATCH

    benchmark(batch)


def test_parse_writes(benchmark):
    payload = memoryview(bytes(BLOCK))
    writes = [Request(0, Command.WRITE, n, at, BLOCK, payload) for n, at in enumerate(OFFSETS)]
    wires = [encode_request(each, extended=False) for each in writes]
    decoder = RequestDecoder(lambda _: True, extended=False)

    def batch():
        found = 0
        for wire in wires:
            decoder.buffer()[: len(wire)] = wire
            found += len(decoder.received(len(wire)))
        assert found == BATCH

    benchmark(batch)


@pytest.mark.parametrize("mode", list(ReplyMode))
def test_encode_reads(benchmark, mode):
    replies = replies_for(mode)
    view = memoryview(os.urandom(BLOCK))
    benchmark(lambda: [read_reply(each, view, replies) for each in READS])


def test_validate(benchmark):
    negotiated = Negotiated(FACTS, ReplyMode.STRUCTURED, True)
    benchmark(lambda: [refusal(each, negotiated) for each in READS])


def test_ask_whether_it_is_cached(benchmark, image):
    with image.open("rb") as file:
        file.read()
        turns = count()
        benchmark(lambda: is_resident(file.fileno(), next(turns) % 31 << 20, 64 << 10))
