"""The probe guest on a node of the lab: what boots is believed, what does not is not."""

import pytest

from leftbehind import nothing_is_left
from minicloud.booting.virttype import boots_a_guest, virt_type_of
from minicloud.cluster import Cluster, Patience
from minicloud.inventory.reading import read_inventory
from minicloud.model.inventory import VirtType
from minicloud.storage.service import Storage


@pytest.fixture
async def ways(lab, inventory, export_server):
    read = read_inventory(inventory)
    async with Cluster(read, Patience()) as cluster:
        yield cluster, Storage(read.nbd)


@pytest.mark.parametrize("virt_type", [VirtType.QEMU, VirtType.KVM])
async def test_a_guest_that_boots_is_believed(lab, export_server, ways, virt_type):
    cluster, storage = ways
    works = await boots_a_guest(await cluster.hypervisor("n1"), storage, "n1", virt_type)
    assert works is (virt_type is VirtType.QEMU or lab.virt_type == "kvm")
    assert nothing_is_left(lab, export_server)


async def test_auto_finds_what_the_lab_knows(lab, inventory, export_server, tmp_path):
    inventory.write_text(inventory.read_text().replace(f'"{lab.virt_type}"', '"auto"'))
    read = read_inventory(inventory)
    async with Cluster(read, Patience()) as cluster:
        session, hypervisor = await cluster.session("n1"), await cluster.hypervisor("n1")
        found = await virt_type_of(session, hypervisor, Storage(read.nbd), cache=tmp_path / "c")
    assert found == lab.virt_type
