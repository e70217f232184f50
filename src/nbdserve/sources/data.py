"""A small disk whose contents stand on the command line."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from nbdserve.device import BlockSize, Capability, Device, DeviceInfo
from nbdserve.errors import ConfigError
from nbdserve.extents import DATA, ZERO_HOLE, Extent, clip, coalesce
from nbdserve.params import SIZE, TEXT, Kind, Value, param

__all__ = ["DataParams", "DataSource"]


def _parse_hex(value: Value) -> bytes:
    try:
        return bytes.fromhex(str(value))
    except ValueError:
        raise ValueError("pairs of hexadecimal digits, e.g. 55aa") from None


def _parse_base64(value: Value) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error:
        raise ValueError("base64 (RFC 4648, section 4)") from None


HEX: Kind[bytes] = Kind("HEX", _parse_hex, bytes.hex)
BASE64: Kind[bytes] = Kind("BASE64", _parse_base64, lambda data: base64.b64encode(data).decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParams:
    """Parameters of `data`: exactly one of text, hex and base64."""

    text: str | None = param(TEXT, argument=True, default=None, help="the contents as UTF-8 text")
    hex: bytes | None = param(HEX, default=None, help="the contents in hexadecimal")
    base64: bytes | None = param(BASE64, default=None, help="the contents in base64")
    size: int | None = param(
        SIZE, default=None, help="size of the disk, if larger than the contents: zeroes follow"
    )


class DataSource(Device):
    """A small read-only disk whose contents are given where it is named.

    For labels, boot sectors and tests. What `size` adds reads as zeroes and costs nothing.

        nbdserve data "a label" size=512
        nbdserve data hex=eb3c90 size=1M
        nbdserve --layer cow data base64=6zyQ size=1G
    """

    Params = DataParams
    shareable = True
    writable = False

    def __init__(self, params: DataParams) -> None:
        given = [value for value in (params.text, params.hex, params.base64) if value is not None]
        if len(given) != 1:
            raise ConfigError("needs exactly one of text, hex and base64", table="source data")
        data = given[0].encode() if isinstance(given[0], str) else given[0]
        size = len(data) if params.size is None else params.size
        if size < len(data):
            raise ConfigError(
                f"{size} is smaller than the contents ({len(data)} bytes)",
                table="source data",
                key="size",
            )
        self._data = memoryview(data)
        self._info = DeviceInfo(size, BlockSize(1, 4096, 32 << 20), Capability.EXTENTS)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        part = self._data[offset : offset + len(view)]
        view[: len(part)] = part
        view[len(part) :] = bytes(len(view) - len(part))
        return True

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.read_into_nowait(offset, view)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        given = max(len(self._data) - offset, 0)
        return clip(coalesce([Extent(given, DATA), Extent(length, ZERO_HOLE)]), length)
