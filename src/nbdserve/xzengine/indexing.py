"""The index of an xz file, read over a device: the I/O that `formats.xzindex` asks for."""

from nbdserve.device import Device
from nbdserve.formats.xz import XzIndex
from nbdserve.formats.xzindex import ReadRange, advance, read_index
from nbdserve.ranges import align_down, align_up
from nbdserve.threads import run_cpu

__all__ = ["index_of"]


async def index_of(device: Device) -> XzIndex:
    """Read the index of the xz file that a device is.

    Raises:
        DeviceError: it cannot be read, or is no whole xz file.
    """
    reader = read_index(device.info.size)
    wanted = advance(reader, None)
    while isinstance(wanted, ReadRange):
        data = await _read(device, wanted)
        # an index of a million blocks takes a second to parse
        wanted = await run_cpu(advance, reader, data)
    return wanted


async def _read(device: Device, wanted: ReadRange) -> bytes:
    """Read a range by whole blocks of the device."""
    unit, end = device.info.block_size.minimum, wanted.offset + wanted.length
    begin = align_down(wanted.offset, unit)
    data = await device.read(begin, min(align_up(end, unit), device.info.size) - begin)
    return data[wanted.offset - begin : end - begin]
