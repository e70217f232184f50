"""Parameters of the layer `cache`, in memory and on disk."""

from dataclasses import dataclass
from pathlib import Path

from nbdserve.errors import ConfigError
from nbdserve.params import PATH, SIZE, Kind, Value, choice, param

__all__ = ["CacheParams", "refuse_alone"]

_SMALLEST, _LARGEST = 512, 32 << 20


def _parse_block(value: Value) -> int:
    size = SIZE.parse(value)
    if size & (size - 1) or not _SMALLEST <= size <= _LARGEST:
        raise ValueError("a power of two from 512 to 32M")
    return size


_BLOCK: Kind[int] = Kind("SIZE", _parse_block, SIZE.show)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheParams:
    """How much is kept, where, and in which units."""

    size: int = param(
        SIZE,
        help="memory to use, or, with path=, room on disk for all images in the folder; the least "
        "recently used go first",
    )
    block: int = param(
        _BLOCK, default=64 << 10, help="the unit of caching, a power of two from 512 to 32M"
    )
    path: Path | None = param(
        PATH, default=None, help="keep it in this folder, across restarts, and not in memory"
    )
    fill: str = param(
        choice("on-read", "background"),
        default="on-read",
        help="what is brought into the folder: what is read, or all of the image by and by",
    )
    fill_rate: int | None = param(
        SIZE, default=None, help="bytes a second for fill=background (default: no limit)"
    )


def refuse_alone(params: CacheParams) -> None:
    """Raise ConfigError if something is given that goes with another key only."""
    if params.path is None and params.fill != "on-read":
        raise ConfigError("goes with path= only", table="layer cache", key="fill")
    if params.fill_rate is not None and params.fill != "background":
        raise ConfigError("goes with fill=background only", table="layer cache", key="fill-rate")
    if params.fill_rate == 0:
        raise ConfigError(
            "0 would never be done; leave fill=background out", table="layer cache", key="fill-rate"
        )
