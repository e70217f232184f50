"""Plans of guests for tests: one of each form that differs in its XML."""

from dataclasses import replace
from datetime import UTC, datetime

from minicloud.domain.names import guest_export_name, seed_export_name
from minicloud.domain.plan import GuestOptions, TcpServer, UnixServer, plan_guest
from minicloud.model.guest import GuestKind, Origin
from minicloud.model.inventory import Bus, Template, VirtType

__all__ = ["PLANS", "TEMPLATE", "make_origin", "make_plan"]

TEMPLATE = Template(
    name="debian", image=("https://images.example/debian-12.raw.xz",), layers=("xz",),
    memory=512 << 20, vcpus=2, bus=Bus.VIRTIO, network="network:default",
)  # fmt: skip
TCP = TcpServer("nbd.lan", 10809)


def make_origin(name="web1", *, kind=GuestKind.CATTLE, seed=False):
    return Origin(
        kind=kind, template="debian", image="https://images.example/debian-12.raw.xz",
        export=guest_export_name(name), seed=seed_export_name(name) if seed else None,
        created=datetime(2026, 11, 23, 12, 30, 5, tzinfo=UTC), user="anna@desk",
    )  # fmt: skip


def make_plan(
    name="web1", *, kind=GuestKind.CATTLE, seed=False, server=TCP, virt=VirtType.QEMU,
    arch="x86_64", options=None, **template,
):  # fmt: skip
    return plan_guest(
        replace(TEMPLATE, **template), options or GuestOptions(kind=kind), name=name,
        uuid="6f1a3c52-8a4e-4c58-9d7b-0c2f6d1e9a10", origin=make_origin(name, kind=kind, seed=seed),
        server=server, virt_type=virt, arch=arch,
    )  # fmt: skip


PLANS = {
    "qemu-tcp-cattle": make_plan(),
    "kvm-tcp-pet-seed": make_plan(kind=GuestKind.PET, seed=True, virt=VirtType.KVM),
    "qemu-unix-seed-cdrom": make_plan(
        seed=True, server=UnixServer("/run/nbdserve/nbd.sock"), network="bridge:br0",
        network_model="e1000",
        options=GuestOptions(seed_is_cdrom=True),
    ),
    "kvm-tls-scsi": make_plan(
        seed=True, virt=VirtType.KVM, bus=Bus.SCSI, network="user", cpu="host-passthrough",
        server=TcpServer("192.0.2.7", 10810, tls=True, tls_hostname="nbd.lan"),
    ),
    "qemu-tls-ide-model": make_plan(
        bus=Bus.IDE, network="none", cpu="Nehalem", seed=True,
        options=GuestOptions(seed_is_cdrom=True), server=TcpServer("nbd.lan", 10809, tls=True),
    ),
    "qemu-kernel": make_plan(
        kernel="/boot/vmlinuz", initrd="/boot/initrd.gz", cmdline="console=ttyS0 a<b",
        options=GuestOptions(memory=(64 << 20) + 1, vcpus=1, network="none"),
    ),
    "kvm-aarch64": make_plan(arch="aarch64", virt=VirtType.KVM),
}  # fmt: skip
