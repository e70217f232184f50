"""The keys of an inventory, declared once: read by the reader and by the reference page.

A key `virt-type` is the field `virt_type` of the value its table becomes; it may be written with
underscores too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from minicloud.inventory.customize import CUSTOMIZE
from minicloud.inventory.kinds import (
    BUS,
    CPU,
    HOST,
    IMAGE,
    LAYER,
    LOCAL_PATH,
    MAC,
    NETWORK,
    NETWORK_MODEL,
    REMOTE_PATH,
    SHA256,
    SHA512,
    SSH_PORT,
    TARGET,
    USER,
    VIRT_TYPE,
    WORD,
)
from nbdserve.params import BOOLEAN, COUNT, SIZE, TEXT, Kind
from nbdserve.settings import DEFAULT_PORT

__all__ = ["DEFAULTS_KEYS", "NBD_KEYS", "NODE_KEYS", "SSH_KEYS", "TEMPLATE_KEYS", "Key"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table.

    Attributes:
        kind: what its value is.
        help: one phrase, lower case, with the default.
        many: a list may stand for it; the value is then a tuple.
    """

    kind: Kind[Any]
    help: str
    many: bool = False


SSH_KEYS: Final[Mapping[str, Key]] = {
    "host": Key(HOST, "name, address, or Host of ssh_config (default: the node's name)"),
    "user": Key(USER, "to log in as (default: what ssh_config says, then yourself)"),
    "port": Key(SSH_PORT, "of sshd (default: what ssh_config says, then 22)"),
    "key": Key(LOCAL_PATH, "private key (default: what ssh_config says, then the agent's)"),
}

NODE_KEYS: Final[Mapping[str, Key]] = {
    **SSH_KEYS,
    "mac": Key(MAC, "of the network card that wakes it; without, it cannot be switched on"),
    "reserve": Key(SIZE, "memory that no guest gets (default 1G)"),
    "tags": Key(WORD, "words to choose nodes by", many=True),
    "virt-type": Key(VIRT_TYPE, "domain type of its guests (default auto: kvm if a guest boots)"),
    "libvirt-socket": Key(REMOTE_PATH, "on the node (default: the usual places are tried)"),
    "migrate-host": Key(HOST, "name or address that other nodes reach it by (default: host)"),
}

NBD_KEYS: Final[Mapping[str, Key]] = {
    "address": Key(HOST, "name or address of the exports for all nodes; needed unless socket is"),
    "port": Key(SSH_PORT, f"TCP port of the exports (default {DEFAULT_PORT})"),
    "socket": Key(REMOTE_PATH, "Unix socket of an nbdserve on each node, instead of TCP"),
    "control": Key(REMOTE_PATH, "nbdserve's control socket (default /run/nbdserve/control.sock)"),
    "ssh": Key(
        TARGET,
        "where nbdserve runs: a node's name, or [user@]host, or a table as of a node (host, user, "
        "port, key); default: this machine",
    ),
    "tls": Key(BOOLEAN, "whether guests speak TLS to it (default false)"),
    "tls-hostname": Key(HOST, "the name in its certificate (default: address)"),
    "overlays": Key(
        REMOTE_PATH, "folder of the guests' overlays there (default /var/lib/nbdserve/overlays)"
    ),
}

DEFAULTS_KEYS: Final[Mapping[str, Key]] = {
    "memory": Key(SIZE, "of a guest (default 1G)"),
    "vcpus": Key(COUNT, "of a guest (default 1)"),
    "network": Key(NETWORK, "network:NAME, bridge:NAME, user or none (default network:default)"),
    "bus": Key(BUS, "of the disk (default virtio)"),
    "cpu": Key(CPU, "maximum, host-model, host-passthrough or a model (default: by virt-type)"),
}

TEMPLATE_KEYS: Final[Mapping[str, Key]] = {
    "image": Key(
        IMAGE, "required: a URL, a list of URLs of the same file (mirrors), or a path", many=True
    ),
    "layers": Key(
        LAYER, "nbdserve's layers over it, nearest the guest first (default: xz for a .xz file)",
        many=True,
    ),
    "sha256": Key(SHA256, "of the image file as it is downloaded"),
    "sha512": Key(SHA512, "likewise"),
    "size": Key(SIZE, "the guest's disk is grown to it (default: the image's own)"),
    "minimum-size": Key(SIZE, "no disk is made smaller"),
    "memory": Key(SIZE, "of a guest (default: that of [defaults])"),
    "minimum-memory": Key(SIZE, "no guest is made with less"),
    "vcpus": Key(COUNT, "of a guest (default: that of [defaults])"),
    "bus": Key(BUS, "of the disk (default: that of [defaults])"),
    "network": Key(NETWORK, "default: that of [defaults]"),
    "network-model": Key(NETWORK_MODEL, "kind of network card (default virtio)"),
    "cpu": Key(CPU, "default: that of [defaults]"),
    "customize": Key(
        CUSTOMIZE, 'what virt-customize does before the first start, e.g. "install nginx"',
        many=True,
    ),
    "user-data": Key(LOCAL_PATH, "cloud-init user-data, a file; makes a seed for the guest"),
    "kernel": Key(REMOTE_PATH, "on the node, to boot instead of the disk's own"),
    "initrd": Key(REMOTE_PATH, "likewise, with kernel"),
    "cmdline": Key(TEXT, "the kernel's command line, with kernel"),
}  # fmt: skip
