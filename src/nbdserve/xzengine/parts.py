"""What of a block in memory may be served while it is being decoded.

Compressed LZMA2 chunks, from the block's start on, as soon as each has passed liblzma's test of it:
damage passes that as seldom as it passes a CRC32, the check that many files have. Stored chunks
have no such test, and what follows one may repeat what is in it; so of these a reader waits for the
check of the whole block. A block that fails it is not served before its check again.
"""

from nbdserve.blockcache import BlockCache, Claim
from nbdserve.buffers import zeroed_buffer
from nbdserve.formats.xz import XzBlock
from nbdserve.ranges import Piece
from nbdserve.xzengine.held import Held
from nbdserve.xzengine.unpacking import MemorySink, Unpacking

__all__ = ["Part", "Parts"]


class Parts:
    """The blocks that are being decoded in memory, as far as they have come.

    Args:
        memory: where they will be held, and who waits for them.
        early: whether anything is served before the check of its block.
    """

    def __init__(self, memory: BlockCache[int, Held], *, early: bool) -> None:
        self._memory = memory
        self._early = early
        self._parts: dict[int, Part] = {}
        self._distrusted: set[int] = set()

    def begin(self, block: XzBlock) -> "Part":
        """Return where the data of a block goes that is loaded from now on, and how far it is.

        A load that nobody waits for any more may still be ending when the next one of its block
        begins: what is served is the newer one's from here on.
        """
        part = self._parts[block.number] = Part(block)
        return part

    def publish(self, part: "Part", unpacking: Unpacking) -> None:
        """Serve what has come; while no step of the decoder is running."""
        trusted = self._early and part.number not in self._distrusted
        if trusted and unpacking.proven > part.proven:
            part.proven = unpacking.proven
            self._memory.nudge(part.number)

    def end(self, part: "Part") -> None:
        """Serve nothing more of it."""
        if self._parts.get(part.number) is part:
            del self._parts[part.number]

    def fail(self, part: "Part") -> int:
        """Note that a block is corrupt; tell how many bytes of it, from its start, were served."""
        self._distrusted.add(part.number)
        return part.served

    async def arrival(self, piece: Piece, claim: Claim[int, Held]) -> Held:
        """Wait until a piece of a block that was claimed may be served.

        Raises:
            DeviceError: it cannot be fetched or decoded.
        """
        return await claim.wait(piece.unit, early=lambda: self._served(piece))

    def _served(self, piece: Piece) -> Held | None:
        part = self._parts.get(piece.unit)
        end = piece.start + piece.length
        if part is None or part.proven < end:
            return None
        part.served = max(part.served, end)
        data = part.sink.data
        return Held(zeroed_buffer(part.size) if data is None else data)


class Part:
    """One load of a block: bytes from its start that may be served, and that were."""

    __slots__ = ("number", "proven", "served", "sink", "size")

    def __init__(self, block: XzBlock) -> None:
        self.number = block.number
        self.size = block.size
        self.sink = MemorySink(block.size)
        self.proven = 0
        self.served = 0
