"""A process to be killed: it writes to a persistent overlay and tells what is durable.

Each slot of 512 bytes belongs to one task, which writes ever higher numbers to it with FUA, or
without and then flushes; "slot number" goes to standard output when that is acknowledged.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from nbdserve.layers.cow import CowLayer, CowParams
from nbdserve.sources.pattern import PatternParams, PatternSource

SIZE = 1 << 20
CLUSTER = 4096
SLOT = 512
TASKS = 8
SLOTS = SIZE // SLOT


def block(number):
    """The contents of a slot once `number` was written to it."""
    return number.to_bytes(8, "big") * (SLOT // 8)


async def write_on(layer, task):
    for number in itertools.count(1):
        slot = number * 37 % (SLOTS // TASKS) * TASKS + task
        data = memoryview(block(number))
        if number % 3:
            await layer.write(slot * SLOT, data, fua=True)
        else:
            await layer.write(slot * SLOT, data, fua=False)
            await layer.flush()
        os.write(1, b"%d %d\n" % (slot, number))  # one write: a line is said whole or not at all


async def main(path):
    layer = CowLayer(PatternSource(PatternParams(size=SIZE)), CowParams(path=path, cluster=CLUSTER))
    await layer.open(read_only=False)
    async with asyncio.TaskGroup() as tasks:
        for task in range(TASKS):
            tasks.create_task(write_on(layer, task))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
