"""A source: the alphabet, over and over."""

from dataclasses import dataclass

from nbdserve.device import Device, DeviceInfo
from nbdserve.params import SIZE, TEXT, param

__all__ = ["AlphabetSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphabetParams:
    """Parameters of `alphabet`: what the command line, TOML and --help know of it."""

    size: int = param(SIZE, argument=True, help="size of the disk")
    letters: str = param(TEXT, default="abcdefghijklmnopqrstuvwxyz", help="what is repeated")


class AlphabetSource(Device):
    """A read-only disk of letters.

    nbdserve alphabet 1M letters=abc
    """

    Params = AlphabetParams

    def __init__(self, params: AlphabetParams) -> None:
        self._letters = params.letters.encode()
        self._info = DeviceInfo(params.size)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        period = len(self._letters)
        start = offset % period
        repeated = self._letters * ((start + len(view)) // period + 1)
        view[:] = repeated[start : start + len(view)]
        return True  # nothing here ever waits

    async def read_into(self, offset: int, view: memoryview) -> None:
        self.read_into_nowait(offset, view)
