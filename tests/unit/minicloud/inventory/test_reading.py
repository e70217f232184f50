"""The inventory as TOML: what is read, and how each mistake is told."""

import logging
from pathlib import Path

import pytest

from minicloud.errors import UsageError
from minicloud.inventory.reading import InventoryError, find_inventory, read_inventory
from minicloud.model.inventory import Bus, Defaults, NbdService, Node, Template, VirtType

WHOLE = f"""
[nodes.ham0]
host = "ham0.lan"
user = "virt"
port = 2222
key = "keys/ham0"
mac = "74-D4-35-51-AB-86"
reserve = "2G"
tags = ["big", "ssd"]
virt_type = "kvm"
libvirt-socket = "/run/libvirt/virtqemud-sock"
migrate-host = "10.0.0.10"

[nodes.ham1]

[nbd]
address = "10.0.0.1"
ssh = "ham0"
control = "/run/nbd.sock"
overlays = "/srv/overlays"
port = 10810
tls = true
tls-hostname = "nbd.lan"

[defaults]
memory = "2G"
vcpus = 2
network = "bridge:br0"
bus = "scsi"
cpu = "host-model"

[templates.debian]
image = ["https://one.example/d.raw.xz?x=1", "https://two.example/d.raw.xz"]
sha256 = "{"A" * 64}"
sha512 = "{"b" * 128}"
size = "20G"
customize = ["install nginx,curl", "--update", "root-password file:secrets/root"]
user-data = "seeds/debian.yaml"

[templates.alpine]
image = "/srv/alpine.raw"
layers = ["cache:size=64M"]
memory = "512M"
vcpus = 1
bus = "virtio"
network = "none"
network-model = "e1000"
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd"
cmdline = "console=ttyS0"
minimum-size = "1G"
minimum-memory = "256M"
"""


@pytest.fixture
def write(tmp_path):
    """Write an inventory: `write(text)`; returns its path."""

    def write_text(text):
        path = tmp_path / "minicloud.toml"
        path.write_text(text)
        return path

    return write_text


def errors_of(path):
    with pytest.raises(InventoryError) as caught:
        read_inventory(path)
    return caught.value.errors


def test_a_node_has_all_that_was_written(write, tmp_path):
    nodes = read_inventory(write(WHOLE)).nodes
    assert list(nodes) == ["ham0", "ham1"]
    assert nodes["ham0"] == Node(
        name="ham0",
        host="ham0.lan",
        user="virt",
        port=2222,
        key=tmp_path / "keys" / "ham0",
        mac="74:d4:35:51:ab:86",
        reserve=2 << 30,
        tags=("big", "ssd"),
        virt_type=VirtType.KVM,
        libvirt_socket="/run/libvirt/virtqemud-sock",
        migrate_host="10.0.0.10",
    )


def test_a_node_needs_no_more_than_a_name(write):
    node = read_inventory(write("[nodes.ham1]")).nodes["ham1"]
    assert node == Node(name="ham1", host="ham1")
    assert node.reserve == 1 << 30


def test_the_export_server_is_read_and_may_be_a_node(write):
    inventory = read_inventory(write(WHOLE))
    assert inventory.nbd == NbdService(
        address="10.0.0.1",
        port=10810,
        control="/run/nbd.sock",
        ssh=inventory.nodes["ham0"],
        tls=True,
        tls_hostname="nbd.lan",
        overlays="/srv/overlays",
    )


def test_templates_have_what_was_written_and_else_the_defaults(write, tmp_path):
    inventory = read_inventory(write(WHOLE))
    assert inventory.defaults == Defaults(
        memory=2 << 30, vcpus=2, network="bridge:br0", bus=Bus.SCSI, cpu="host-model"
    )
    assert inventory.templates["debian"] == Template(
        name="debian",
        image=("https://one.example/d.raw.xz?x=1", "https://two.example/d.raw.xz"),
        layers=("xz",),
        sha256="a" * 64,
        sha512="b" * 128,
        size=20 << 30,
        memory=2 << 30,
        vcpus=2,
        bus=Bus.SCSI,
        network="bridge:br0",
        cpu="host-model",
        customize=(
            ("install", "nginx,curl"),
            ("update", ""),
            ("root-password", f"file:{tmp_path}/secrets/root"),
        ),
        user_data=tmp_path / "seeds" / "debian.yaml",
    )
    assert inventory.templates["alpine"] == Template(
        name="alpine",
        image=("/srv/alpine.raw",),
        layers=("cache:size=64M",),
        memory=512 << 20,
        minimum_memory=256 << 20,
        minimum_size=1 << 30,
        vcpus=1,
        bus=Bus.VIRTIO,
        network="none",
        network_model="e1000",
        cpu="host-model",
        kernel="/boot/vmlinuz",
        initrd="/boot/initrd",
        cmdline="console=ttyS0",
    )


def test_a_home_folder_is_found(write, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    inventory = read_inventory(write('[nodes.a]\nkey = "~/.ssh/id"'))
    assert inventory.nodes["a"].key == Path("/somewhere/.ssh/id")


@pytest.mark.parametrize(
    ("written", "node"),
    [
        ('"nbd.lan"', Node(name="nbd.lan", host="nbd.lan")),
        ('"root@nbd.lan"', Node(name="nbd.lan", host="nbd.lan", user="root")),
        ('"a"', Node(name="a", host="a.lan")),
        ('{ host = "b", port = 22 }', Node(name="b", host="b", port=22)),
    ],
)
def test_the_export_server_may_be_elsewhere(write, written, node):
    path = write(f'[nodes.a]\nhost = "a.lan"\n[nbd]\naddress = "x"\nssh = {written}')
    assert read_inventory(path).nbd.ssh == node


def test_a_server_on_every_node_needs_no_address(write):
    nbd = read_inventory(write('[nbd]\nsocket = "/run/nbd.sock"')).nbd
    assert nbd.socket == "/run/nbd.sock"


def test_an_image_of_this_machine_may_be_beside_the_inventory(write, tmp_path):
    path = write('[templates.t]\nimage = "images/t.raw.xz"')
    template = read_inventory(path).templates["t"]
    assert template.image == (f"{tmp_path}/images/t.raw.xz",)
    assert template.layers == ("xz",)


def test_an_empty_list_of_layers_is_no_layer(write):
    path = write('[templates.t]\nimage = "https://example.com/t.xz"\nlayers = []')
    assert read_inventory(path).templates["t"].layers == ()


def test_memory_is_at_least_what_the_template_needs(write):
    path = write('[templates.t]\nimage = "/t"\nminimum-memory = "3G"')
    assert read_inventory(path).templates["t"].memory == 3 << 30


T = "[templates.t]\nimage = '/t'\n"
REMOTE = "[nbd]\naddress = 'x'\nssh = 'y'\n"


@pytest.mark.parametrize(
    ("text", "table", "key", "part"),
    [
        ("[nodez.a]", None, None, "unknown table 'nodez'; did you mean 'nodes'?"),
        ("nodes = 3", "nodes.NAME", None, "is a table: write [nodes.NAME]"),
        ("[nodes]\na = 3", "nodes.a", None, "is a table: write [nodes.a]"),
        ("[nodes.'a:b']", "nodes.a:b", None, "'a:b' will not do: a name"),
        ("[nodes.a]\nmacc = 1", "nodes.a", None, "unknown key 'macc'; did you mean 'mac'?"),
        ("[nodes.a]\nmac = '1:2'", "nodes.a", "mac", "six bytes"),
        ("[nodes.a]\nmac = '01:00:5e:00:00:01'", "nodes.a", "mac", "a multicast address"),
        ("[nodes.a]\nport = 0", "nodes.a", "port", "a port from 1 to 65535"),
        ("[nodes.a]\nreserve = '1X'", "nodes.a", "reserve", "a size in bytes"),
        ("[nodes.a]\nhost = '-oProxyCommand=x'", "nodes.a", "host", "a name or an address"),
        ("[nodes.a]\nhost = 'root@x'", "nodes.a", "host", "the user has a key of its own"),
        ("[nodes.a]\nhost = ['x']", "nodes.a", "host", "['x'] will not do: a HOST"),
        ("[nodes.a]\nuser = '-l'", "nodes.a", "user", "a user's name"),
        ("[nodes.a]\nvirt-type = 'xen'", "nodes.a", "virt-type", "one of auto, kvm, qemu"),
        ("[nodes.a]\nlibvirt-socket='x'", "nodes.a", "libvirt-socket", "beginning with /"),
        ("[nodes.a]\nvirt-type='kvm'\nvirt_type='kvm'", "nodes.a", "virt-type", "given twice"),
        ("[nbd]\nport = 1", "nbd", "address", "is missing"),
        ("[nbd]\naddress = 'x'\nssh = 'root@'", "nbd", "ssh", "no host in it"),
        ("[nbd]\naddress = 'x'\nssh = { user = 'a' }", "nbd.ssh", "host", "is missing"),
        ("[defaults]\nnetwork = 'br0'", "defaults", "network", "bridge:NAME"),
        ("[defaults]\nvcpus = 0", "defaults", "vcpus", "1 or more"),
        ("[defaults]\ncpu = '<x>'", "defaults", "cpu", "host-model"),
        ("[templates.t]\nsize = 1", "templates.t", "image", "is missing"),
        ("[templates.t]\nimage = []", "templates.t", "image", "is missing"),
        ("[templates.t]\nimage = 'ftp://x/y'", "templates.t", "image", "http:// or https://"),
        ("[templates.t]\nimage = 'http:///y'", "templates.t", "image", "a URL with a host"),
        ("[templates.t]\nimage = 'http://[x/y'", "templates.t", "image", "a URL ("),
        ("[templates.t]\nimage = ['http://x/y', '/z']", "templates.t", "image", "mirrors"),
        (REMOTE + "[templates.t]\nimage = 't'", "templates.t", "image", "begins with /"),
        (T + "sha256 = 'abc'", "templates.t", "sha256", "64 hexadecimal digits"),
        (T + "sha512 = 'abc'", "templates.t", "sha512", "128 hexadecimal digits"),
        (T + "bus = 'usb'", "templates.t", "bus", "one of virtio, scsi, sata, ide"),
        (T + "layers = ['xzz']", "templates.t", "layers", "did you mean 'xz'?"),
        (T + "layers = ['cache:']", "templates.t", "layers", "is no layer"),
        (T + "customize = ['instal x']", "templates.t", "customize", "did you mean 'install'?"),
        (T + "initrd = '/i'", "templates.t", "initrd", "goes with a kernel"),
        (T + "size = 1\nminimum-size = 2", "templates.t", "size", "less than minimum-size"),
        (T + "memory = 1\nminimum-memory = 2", "templates.t", "memory", "less than minimum-memory"),
    ],
)
def test_a_mistake_names_file_table_and_key(write, text, table, key, part):
    path = write(text)
    (error,) = errors_of(path)
    assert (error.file, error.table, error.key) == (path, table, key)
    assert part in str(error)


def test_all_mistakes_are_found_and_counted(write):
    path = write("[nodes.a]\nport = 'x'\nkeyy = 1\n[nbd]\n[templates.t]\n")
    with pytest.raises(InventoryError, match=r"nodes\.a: port: 'x' .* \(and 3 more\)$") as caught:
        read_inventory(path)
    places = [(error.table, error.key) for error in caught.value.errors]
    assert places == [
        ("nodes.a", "port"), ("nodes.a", None), ("nbd", "address"), ("templates.t", "image"),
    ]  # fmt: skip


def test_a_password_in_the_inventory_is_refused_and_not_repeated(write):
    (error,) = errors_of(write(T + "customize = ['root-password password:hunter2']"))
    assert "a password stands in a file" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[nodes.a]\n[nodes.a]", "Cannot declare"),
        ("[nodes.a", "not valid TOML"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(write, text, part):
    with pytest.raises(UsageError, match=part):
        read_inventory(write(text))


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_inventory(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(UsageError, match="there is no such inventory"):
        read_inventory(tmp_path / "no.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_inventory(tmp_path)


def test_one_host_under_two_names_is_warned_of(write, caplog):
    caplog.set_level(logging.WARNING)
    mac = 'mac = "02:00:00:00:00:01"'
    first, second = (f'[nodes.{name}]\nhost = "{host}"\n{mac}\n' for name, host in ("aX", "bx"))
    read_inventory(write(f'{first}{second}[nodes.c]\nhost = "x"\nport = 1'))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "nodes a and b are one host, x" in told[0]
    assert "nodes a and b have one MAC address" in told[1]


def test_the_ssh_config_is_kept(write, tmp_path):
    inventory = read_inventory(write(""), ssh_config=tmp_path / "config")
    assert inventory.ssh_config == tmp_path / "config"


class TestFinding:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("MINICLOUD_CONFIG", raising=False)

    def test_the_option_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MINICLOUD_CONFIG", str(tmp_path))
        assert find_inventory(Path("mine.toml")) == Path("mine.toml")

    def test_the_environment_comes_next(self, tmp_path, monkeypatch):
        (tmp_path / "env.toml").touch()
        monkeypatch.setenv("MINICLOUD_CONFIG", "~/env.toml")
        assert find_inventory(None) == tmp_path / "env.toml"

    def test_the_environment_may_not_name_what_is_not_there(self, monkeypatch):
        monkeypatch.setenv("MINICLOUD_CONFIG", "/no/such.toml")
        with pytest.raises(UsageError, match=r"/no/such\.toml: .*MINICLOUD_CONFIG names it"):
            find_inventory(None)

    def test_the_users_folder_comes_last(self, tmp_path):
        usual = tmp_path / "config" / "minicloud" / "minicloud.toml"
        usual.parent.mkdir(parents=True)
        usual.touch()
        assert find_inventory(None) == usual

    def test_nothing_anywhere_names_all_places_and_the_way_out(self, tmp_path):
        with pytest.raises(UsageError) as caught:
            find_inventory(None)
        text = str(caught.value)
        usual = f"{tmp_path}/config/minicloud/minicloud.toml"
        for part in ("--config", "MINICLOUD_CONFIG", usual, "--from-ssh-config"):
            assert part in text
