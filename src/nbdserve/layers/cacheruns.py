"""Reading blocks from beneath a cache: neighbours together, each once for all its readers."""

import functools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

from nbdserve.blockcache import BlockCache, Claim, Weighed

__all__ = ["RUN", "RunLoader", "runs", "single_blocks"]

_LOADS = 16  # reads beneath at once
RUN: Final = 1 << 20  # bytes of neighbouring blocks brought by one read
_BATCH = 4 << 20  # bytes that one request holds or waits for at once


class RunLoader:
    """Claims for blocks that are read in runs.

    Attributes:
        blocks: what is held in memory, and the reads under way.
        most: blocks in a run.
        batch: blocks that one request should hold or wait for at once.
    """

    def __init__(
        self,
        budget: int,
        block: int,
        load: Callable[[range], Coroutine[Any, Any, Sequence[Weighed[memoryview]]]],
    ) -> None:
        """Begin with nothing.

        Args:
            budget: memory to use, in bytes.
            block: bytes in a block.
            load: reads a run of blocks.
        """
        self.blocks: BlockCache[int, memoryview] = BlockCache(budget, loads=_LOADS)
        self.most = max(1, min(RUN, budget // 4) // block)
        self.batch = max(1, _BATCH // block)
        self._block = block
        self._load = load

    def claim(
        self,
        numbers: Sequence[int],
        found: dict[int, memoryview],
        claims: dict[int, Claim[int, memoryview]],
    ) -> None:
        """Take each block from memory, or from a read under way, or begin one.

        Args:
            numbers: of the blocks, ascending.
            found: gets those that are in memory.
            claims: gets the others; whoever calls leaves them all, even if this fails.
        """
        missing = []
        for number in numbers:
            data = self.blocks.get_nowait(number)
            if data is not None:
                found[number] = data
            elif (joined := self.blocks.join(number)) is not None:
                claims[number] = joined
            else:
                missing.append(number)
        for run in runs(missing, self.most):
            load = functools.partial(self._load, run)
            claim = self.blocks.start(run, load, len(run) * self._block)
            claims.update(dict.fromkeys(run, claim))

    def forget_held(self, numbers: Sequence[int]) -> None:
        """Drop blocks from memory, so that they are read again; reads under way go on."""
        self.blocks.discard([n for n in numbers if self.blocks.get_nowait(n) is not None])


def runs(numbers: Sequence[int], most: int) -> Iterator[range]:
    """Join ascending block numbers to runs of neighbours, of at most `most` blocks each."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - begin == most:
            yield range(numbers[begin], numbers[at - 1] + 1)
            begin = at


def single_blocks(buffer: memoryview, block: int) -> list[Weighed[memoryview]]:
    """Cut what one read brought into blocks, each in memory of its own, to be freed alone."""
    if len(buffer) <= block:
        return [Weighed(buffer, len(buffer))]
    cut = (buffer[at : at + block] for at in range(0, len(buffer), block))
    return [Weighed(memoryview(bytes(part)), len(part)) for part in cut]
