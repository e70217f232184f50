"""Domains made and removed on a node's libvirtd (its test driver starts none that stands still)."""

import functools

import pytest

from minicloud.cluster import Cluster, Patience
from minicloud.hypervisor.domains import create_paused, remove, resume, standing
from minicloud.inventory.reading import read_inventory
from minicloud.model.guest import GuestState

UUID = "6f1a3c52-8a4e-4c58-9d7b-0c2f6d1e9a10"
XML = f"""<domain type='qemu'><name>bare</name><uuid>{UUID}</uuid><memory>65536</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""


@pytest.fixture
async def call(lab, inventory):
    async with Cluster(read_inventory(inventory), Patience()) as cluster:
        hypervisor = await cluster.hypervisor("n1")

        async def called(work, *args, **kwargs):
            def doing(connection):
                return work(connection, *args, **kwargs)

            return await hypervisor.call(doing, deadline=120)

        yield called


def flags(connection):
    domain = connection.lookupByUUIDString(UUID)
    return bool(domain.isPersistent()), bool(domain.autostart())


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_domain_stands_still_until_it_is_resumed(call, is_kept):
    made = await call(create_paused, XML, is_kept=is_kept)
    assert UUID in made.xml
    assert made.libvirt >= (9, 0, 0)
    assert (await call(standing, UUID)).state is GuestState.PAUSED
    assert await call(flags) == (is_kept, is_kept)
    await call(resume, UUID)
    assert (await call(standing, UUID)).state is GuestState.RUNNING
    if is_kept:
        assert await call(functools.partial(remove, uuid=UUID, is_forgotten=False))
        assert (await call(standing, UUID)).state is GuestState.SHUTOFF
    assert await call(remove, UUID)
    assert await call(standing, UUID) is None
    assert not await call(remove, UUID), "what is gone is no error"
