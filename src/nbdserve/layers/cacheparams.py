"""Parameters of the layer `cache`."""

from dataclasses import dataclass

from nbdserve.params import SIZE, Kind, Value, param

__all__ = ["CacheParams"]

_SMALLEST, _LARGEST = 512, 32 << 20


def _parse_block(value: Value) -> int:
    size = SIZE.parse(value)
    if size & (size - 1) or not _SMALLEST <= size <= _LARGEST:
        raise ValueError("a power of two from 512 to 32M")
    return size


_BLOCK: Kind[int] = Kind("SIZE", _parse_block, SIZE.show)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheParams:
    """How much is kept, and in which units."""

    size: int = param(SIZE, help="memory to use; the least recently used blocks go first")
    block: int = param(
        _BLOCK, default=64 << 10, help="the unit of caching, a power of two from 512 to 32M"
    )
