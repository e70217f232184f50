"""Copy-on-write devices over small bases, for tests of the layer cow."""

import contextlib
import resource

from nbdserve.device import NoParams
from nbdserve.layers.cow import CowLayer, CowParams
from nbdserve.sources.pattern import PatternParams, PatternSource
from nbdserve.testing.faults import FaultyDevice, RecordingDevice

K = 1024
CLUSTER = 4 * K
SIZE = 64 * K


@contextlib.asynccontextmanager
async def opened(inner, *, read_only=False, **params):
    layer = CowLayer(inner, CowParams(**{"cluster": CLUSTER, **params}))
    await layer.open(read_only=read_only)
    try:
        yield layer
    finally:
        await layer.close()


def pattern(size=SIZE):
    return PatternSource(PatternParams(size=size))


def recording(size=SIZE):
    return RecordingDevice(pattern(size), NoParams())


def faulty(size=SIZE):
    return FaultyDevice(pattern(size), NoParams())


async def contents(device, offset=0, length=None):
    return bytearray(await device.read(offset, device.info.size if length is None else length))


async def zero(layer, offset, length, *, may_trim=True, fast=False):
    await layer.write_zeroes(offset, length, fua=False, may_trim=may_trim, fast=fast)


async def write(layer, offset, data):
    await layer.write(offset, memoryview(data), fua=False)


@contextlib.contextmanager
def file_size_limit(size):
    """Make the kernel refuse to let any file of this process grow beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
