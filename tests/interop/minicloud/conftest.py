"""Three nodes, made once a session, whole again after each test; and what their guests boot from.

A test that asks for `lab`, or for anything built on it, runs in the hub's network: its thread is
taken into the hub's namespace for the test's time (setns(2)), and with it its event loop, every
socket it makes, every process and thread it starts. So in-process asyncio code, `minicloud` as a
child, nginx and nbdserve all see the nodes as an operator's machine would, with nothing wrapped.
What has been started before, or at session scope, stays where it was: a session's fixture enters
`with lab.hub.entered():` itself.

Guests are told what to do by words (tests/lib/guest-init.sh) in comments of their user-data, e.g.
`# guest.ip=10.99.0.101/24`, or on the kernel's command line.
"""

import subprocess
from pathlib import Path

import pytest

from exportserver import ExportServer
from guest import bootable_image, kernel_and_initrd, revision
from lab import Lab, missing
from nginx import nginx

_INVENTORY = """
[nbd]
address = "{address}"
port = {port}
control = "{control}"
overlays = "{overlays}"

[defaults]
memory = "128M"
network = "bridge:vmbr0"

[templates.tiny]
image = "{image}"
layers = ["xz"]
"""

_NODE = """
[nodes.{name}]
host = "{address}"
user = "root"
key = "{key}"
mac = "{mac}"
reserve = "64M"
virt-type = "{virt_type}"
"""


@pytest.fixture(scope="session")
def nodes(tmp_path_factory, build):
    """The lab itself; tests ask for `lab`."""
    if problem := missing():
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("nodes") / "lab"
    with Lab(folder, 3, cache=build / "capabilities") as lab:
        yield lab


@pytest.fixture
def lab(nodes):
    """Three nodes, up and without a guest; the test runs in their hub's network."""
    try:
        with nodes.hub.entered():
            yield nodes
    finally:
        nodes.restore()


@pytest.fixture(scope="session")
def tiny_image(build) -> Path:
    """A bootable raw image of 48 MiB with a spare partition; its guests power off when booted."""
    path = build / f"tiny-{revision()}.img"
    if not path.exists():
        for old in build.glob("tiny-*"):
            old.unlink()
        fresh = build / "tiny.new"
        bootable_image(fresh, size=48 << 20, cache=build / "guest", spare=8 << 20, words="")
        fresh.rename(path)
    return path


@pytest.fixture(scope="session")
def tiny_image_xz(tiny_image) -> Path:
    """The same in xz blocks of 4 MiB."""
    path = tiny_image.with_suffix(".img.xz")
    if not path.exists():
        fresh = path.with_name("tiny.new.xz")
        with fresh.open("wb") as out:
            subprocess.run(
                ["xz", "-0", "-T0", "--block-size=4MiB", "--stdout", tiny_image],
                stdout=out, check=True,
            )  # fmt: skip
        fresh.rename(path)
    return path


@pytest.fixture(scope="session")
def kernel(build, tmp_path_factory) -> tuple[Path, Path]:
    """The guests' kernel and initramfs, readable on all nodes: for guests booted directly."""
    folder = tmp_path_factory.mktemp("kernel")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    return kernel_and_initrd(folder, cache=build / "guest")


@pytest.fixture(scope="session")
def tiny_web(nodes, tmp_path_factory, tiny_image_xz):
    """An nginx in the hub's network that serves the tiny image as tiny.img.xz."""
    with nodes.hub.entered(), nginx(tmp_path_factory.mktemp("tiny-web")) as server:
        (server.files / "tiny.img.xz").symlink_to(tiny_image_xz)
        yield server


@pytest.fixture
def export_server(lab, tmp_path):
    """An nbdserve at the hub's address, without exports."""
    server = ExportServer(tmp_path / "nbdserve", lab.hub.address)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def inventory(lab, tiny_web, export_server, tmp_path, monkeypatch) -> Path:
    """minicloud.toml of the lab, set up for this process and its children; template: tiny.

    HOME is an empty one, and the nodes' host keys are known.
    """
    home = tmp_path / "home"
    home.mkdir()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_bytes(lab.known_hosts.read_bytes())
    text = "".join(
        _NODE.format(
            name=node.name, address=node.address, key=lab.key, mac=node.mac,
            virt_type=lab.virt_type,
        )
        for node in lab.nodes.values()
    )  # fmt: skip
    text += _INVENTORY.format(
        address=export_server.address, port=export_server.port, control=export_server.control,
        overlays=export_server.overlays, image=tiny_web.url("tiny.img.xz"),
    )  # fmt: skip
    path = tmp_path / "minicloud.toml"
    path.write_text(text)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MINICLOUD_CONFIG", str(path))
    monkeypatch.setenv("MINICLOUD_KNOWN_HOSTS", str(known_hosts))
    for name in ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return path
