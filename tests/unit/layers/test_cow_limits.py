import resource
from pathlib import Path

import pytest

from cow_chain import CLUSTER, SIZE, K, contents, file_size_limit, opened, pattern, write, zero
from nbdserve.device import BlockSize, Device, DeviceInfo, NoParams
from nbdserve.errors import ConfigError, DeviceError, NoSpaceError
from nbdserve.extents import DATA, Extent
from nbdserve.layers.cow import CowLayer, CowParams
from nbdserve.params import params_from
from nbdserve.testing.faults import RecordingDevice


@pytest.mark.parametrize("persistent", [True, False])
async def test_when_no_space_is_left_a_write_fails_and_the_device_is_what_it_was(
    tmp_path, persistent
):
    params = {"path": tmp_path / "x.cow"} if persistent else {"dir": tmp_path}
    async with opened(pattern(), **params) as layer:
        await write(layer, 0, b"kept".ljust(CLUSTER))
        before = await contents(layer)
        with file_size_limit(layer._data.place(4 * CLUSTER)[1] + 100):
            with pytest.raises(NoSpaceError, match="no space for what is written"):
                await write(layer, CLUSTER, b"n" * 8 * CLUSTER)
            with pytest.raises(NoSpaceError):
                await write(layer, 10 * CLUSTER, b"n")
        assert await contents(layer) == before
        await write(layer, 10 * CLUSTER, b"n")
        before[10 * CLUSTER] = ord("n")
        assert await contents(layer) == before


async def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    layer = CowLayer(pattern(), CowParams(dir=tmp_path / "missing"))
    with pytest.raises(DeviceError, match=r"missing: no temporary file can be made: No such.*dir="):
        await layer.open(read_only=False)


async def test_the_temporary_file_goes_to_tmpdir_and_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with opened(pattern()) as layer:
        await write(layer, 0, b"x")
        assert list(tmp_path.iterdir()) == []
        fd = layer._data.place(0)[0]
        assert Path(f"/proc/self/fd/{fd}").readlink().parent == tmp_path


@pytest.mark.parametrize("written", ["1000", "3K", "96K", "2K", "128M", "0"])
def test_a_cluster_that_is_no_power_of_two_in_bounds_is_refused(written):
    params = params_from(CowParams, (("cluster", written),), element="layer cow")
    with pytest.raises(ConfigError, match=r"layer cow: cluster: .* a power of two from 4K to 64M"):
        CowLayer(pattern(), params)


def test_a_kept_overlay_has_no_temporary_folder(tmp_path):
    with pytest.raises(ConfigError, match="layer cow: dir: goes with a temporary file"):
        CowLayer(pattern(), CowParams(path=tmp_path / "x", dir=tmp_path))


class Huge(Device):
    def __init__(self, size, minimum=1):
        self._info = DeviceInfo(size, BlockSize(minimum, 4096, 1 << 20))

    @property
    def info(self):
        return self._info

    async def read_into(self, offset, view):
        view[:] = bytes(len(view))


async def test_a_huge_base_gets_larger_clusters_and_no_memory_for_what_is_not_written():
    size = 1 << 50
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with opened(Huge(size), cluster=None) as layer:
        assert layer.info.block_size.preferred == 4 << 20
        await write(layer, 1 << 42, b"far")  # as far as most file systems go
        assert await layer.read((1 << 42) - 5, 8) == b"\0\0\0\0\0far"
        assert await layer.extents(0, size) == [Extent(size, DATA)]
        with pytest.raises(NoSpaceError, match="the file system holds no file so large"):
            await write(layer, size - 3, b"end")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


async def test_a_cluster_too_small_for_a_huge_base_is_refused():
    with pytest.raises(ConfigError, match=r"65536 is too small .* write at least 4194304"):
        async with opened(Huge(1 << 50), cluster=64 * K):
            pass


async def test_the_smallest_block_of_the_base_is_kept():
    inner = RecordingDevice(Huge(SIZE, minimum=512), NoParams())
    async with opened(inner) as layer:
        assert layer.info.block_size.minimum == 512
        await write(layer, 512, b"d" * 512)
        assert all(offset % 512 == length % 512 == 0 for offset, length in inner.made("read"))


async def test_a_base_of_size_0_is_served():
    async with opened(pattern(0)) as layer:
        assert await contents(layer) == b""
        await layer.flush()


async def test_requests_of_length_0_do_nothing():
    async with opened(pattern()) as layer:
        await write(layer, 10, b"")
        await zero(layer, CLUSTER, 0)
        await layer.trim(10, 0, fua=True)
        assert await contents(layer) == await contents(pattern())
