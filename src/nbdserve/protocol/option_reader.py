"""The client's bytes cut into options: the one place that holds what a stranger sends.

Only the options it is told of are read whole, up to `MAX_OPTION_LENGTH`; the data of any other is
passed over as it arrives, so that a peer cannot make the server hold what it will not look at.

Bound: when `next_option` has returned None, fewer than `MOST_HELD` bytes are held.
Source: NBD proto.md, "Newstyle negotiation".
"""

from collections.abc import Container
from typing import ClassVar, Final, NamedTuple

from nbdserve.errors import ProtocolError
from nbdserve.protocol.constants import MAX_OPTION_LENGTH, OPTION_MAGIC
from nbdserve.protocol.options import OPTION_HEADER

__all__ = ["ABSURD_LENGTH", "OptionReader", "ReceivedOption"]

ABSURD_LENGTH: Final = 1 << 20
"""An option longer than this ends the connection: passing over 4 GiB serves nobody."""

_FLAGS_SIZE = 4


class ReceivedOption(NamedTuple):
    """An option that has arrived to its last byte.

    Attributes:
        option: its number, known or not.
        length: of its data, in bytes.
        data: empty if it was passed over.
    """

    option: int
    length: int
    data: bytes

    @property
    def is_passed_over(self) -> bool:
        """Whether it had data that was not kept."""
        return len(self.data) < self.length


class OptionReader:
    """Cut a byte stream into client flags and options.

    Args:
        read_whole: options whose data is wanted.
    """

    MOST_HELD: ClassVar[int] = MAX_OPTION_LENGTH

    def __init__(self, read_whole: Container[int]) -> None:
        self._read_whole = read_whole
        self._buffer = bytearray()
        self._option = 0
        self._length = 0
        self._skip: int | None = None  # None: between options; else data still to be passed over

    @property
    def held(self) -> int:
        """Bytes held now."""
        return len(self._buffer)

    def receive(self, data: bytes | memoryview) -> None:
        """Take more bytes, copying them."""
        self._buffer += data

    def next_flags(self) -> int | None:
        """Take the client flags, which come first; None if they have not arrived."""
        if len(self._buffer) < _FLAGS_SIZE:
            return None
        return int.from_bytes(self._take(_FLAGS_SIZE), "big")

    def next_option(self) -> ReceivedOption | None:
        """Take the next option; None if it has not arrived to its last byte.

        Raises:
            ProtocolError: no option, or an absurd one.
        """
        if self._skip is None and not self._read_header():
            return None
        assert self._skip is not None
        kept = self._length if self._is_kept else 0
        if len(self._buffer) < kept:
            return None
        if self._skip:
            passed = min(self._skip, len(self._buffer))
            del self._buffer[:passed]
            self._skip -= passed
            if self._skip:
                return None
        self._skip = None
        return ReceivedOption(self._option, self._length, self._take(kept))

    def take_rest(self) -> bytes:
        """Take whatever is held."""
        return self._take(len(self._buffer))

    def clear(self) -> None:
        """Forget whatever is held."""
        self._buffer.clear()

    @property
    def _is_kept(self) -> bool:
        return self._option in self._read_whole and self._length <= MAX_OPTION_LENGTH

    def _read_header(self) -> bool:
        if len(self._buffer) < OPTION_HEADER.size:
            return False
        magic, self._option, self._length = OPTION_HEADER.unpack(self._take(OPTION_HEADER.size))
        if magic != OPTION_MAGIC:
            raise ProtocolError(f"bad option magic {magic!r}")
        if self._length > ABSURD_LENGTH:
            raise ProtocolError(f"option {self._option} with {self._length} bytes of data")
        self._skip = 0 if self._is_kept else self._length
        return True

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data
