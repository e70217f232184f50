"""Whether a node runs guests under KVM: believed only where one really booted.

Without the module of an x86 maker's KVM nothing is tried: what else offers /dev/kvm (PVM, for one)
was seen to take a guest and never run it. What a boot of the node has shown is kept, on this
machine, until its next boot: a few bytes that may be deleted at any time.
"""

import contextlib
import functools
import json
import logging
import os
import re
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from minicloud.booting.launch import withdraw
from minicloud.booting.undo import Undo
from minicloud.domain.plan import server_of
from minicloud.domain.probe import PROBE_PREFIX, PROBE_WORD, probe_export, probe_xml
from minicloud.errors import NodeError, Reason
from minicloud.hypervisor.driver import Hypervisor
from minicloud.hypervisor.probing import says
from minicloud.model.inventory import VirtType
from minicloud.ssh.session import Session
from minicloud.storage.service import Storage

__all__ = [
    "KVM_MODULES", "KVM_SCRIPT", "Known", "KvmFacts", "boots_a_guest", "parse_kvm_facts",
    "virt_type_of",
]  # fmt: skip

logger = logging.getLogger(__name__)

KVM_MODULES: Final = ("kvm_intel", "kvm_amd")
"""Of the kernel, on x86: what makes a guest worth trying."""

_PROBING: Final = 8.0  # seconds; under real KVM it takes less than one, most of them qemu's start
_FILE: Final = "virt-types.json"
_SILENT: Final = frozenset({Reason.LIBVIRT_HUNG, Reason.DEADLINE})

_BOOT_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_WANTED: Final = " ".join(f"/sys/module/{name}" for name in KVM_MODULES)
KVM_SCRIPT: Final = f"""
cat /proc/sys/kernel/random/boot_id
uname -m
for one in {_WANTED} /dev/kvm; do [ -e $one ] && echo $one; done
:
"""
"""Prints what `parse_kvm_facts` reads."""


@dataclass(frozen=True, slots=True)
class KvmFacts:
    """What a node says before anything is tried.

    Attributes:
        boot: of the node, an id of its kernel's.
        arch: of it.
        may_work: a guest is worth trying.
    """

    boot: str
    arch: str
    may_work: bool


def parse_kvm_facts(text: str) -> KvmFacts:
    """Read what the script printed.

    Raises:
        NodeError: it printed something else.
    """
    boot, arch, *found = [*text.split(), "", ""]
    if not (_BOOT_ID.fullmatch(boot) and arch):
        raise NodeError(
            Reason.COMMAND, f"it did not say what its kernel has: {text!r}",
            "set virt-type of the node to kvm or qemu",
        )  # fmt: skip
    has_module = arch != "x86_64" or any(one.startswith("/sys/module/") for one in found)
    return KvmFacts(boot, arch, has_module and "/dev/kvm" in found)


async def virt_type_of(
    session: Session, hypervisor: Hypervisor, storage: Storage, *, cache: Path | None = None
) -> VirtType:
    """Tell how a node runs guests, where its virt-type is `auto`.

    Args:
        session: to the node.
        hypervisor: of the node.
        storage: serves its guests.
        cache: folder of what is kept; None is the user's own.

    Raises:
        NodeError: the node does not say.
        StorageError: the probe's disk cannot be served.
    """
    node = session.node
    if node.virt_type is not VirtType.AUTO:
        return node.virt_type
    done = await session.run(["sh", "-c", KVM_SCRIPT])
    facts = parse_kvm_facts(done.stdout.decode(errors="replace"))
    if not facts.may_work:
        return VirtType.QEMU
    if facts.arch != "x86_64":
        return VirtType.KVM  # the probe is x86 code; no other KVM is known that never runs a guest
    known = Known(cache)
    virt_type = known.read(node.name, facts.boot)
    if virt_type is None:
        works = await boots_a_guest(hypervisor, storage, node.name, VirtType.KVM)
        virt_type = VirtType.KVM if works else VirtType.QEMU
        known.write(node.name, facts.boot, virt_type)
    return virt_type


async def boots_a_guest(
    hypervisor: Hypervisor, storage: Storage, node: str, virt_type: VirtType
) -> bool:
    """Boot the probe guest of an x86 node; nothing of it stays, whatever comes of it.

    Args:
        hypervisor: of the node.
        storage: serves its disk.
        node: its name, for the log.
        virt_type: to try.

    Raises:
        NodeError: the node cannot be asked.
        StorageError: the disk cannot be served.
    """
    assert storage.nbd is not None, "guests are only made where there is a server"
    name = f"minicloud-probe-{uuid.uuid4().hex[:8]}"
    export = f"{PROBE_PREFIX}{name}"
    xml = probe_xml(name, export, virt_type, server_of(storage.nbd))
    work = functools.partial(says, xml=xml, word=PROBE_WORD)
    undo = Undo()
    undo.by(f"export {export}", lambda: withdraw(storage, export))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(undo.take_back)
        await storage.add(probe_export(export))
        try:
            works = await hypervisor.call(work, deadline=_PROBING)
        except NodeError as exc:
            if exc.reason not in {*_SILENT, Reason.LIBVIRT}:
                raise
            works = False
            logger.info("probe failed node=%s virt_type=%s: %s", node, virt_type, exc)
    if not works:
        logger.info("no guest boots node=%s virt_type=%s", node, virt_type)
    return works


class Known:
    """The file of what is known; one that cannot be read or written costs a probe, nothing else.

    Args:
        folder: it is in; None is the user's own.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or platformdirs.user_cache_path("minicloud")) / _FILE

    def read(self, node: str, boot: str) -> VirtType | None:
        """Tell what this boot of a node has shown, if anything."""
        entry = self._all().get(node)
        if not isinstance(entry, dict) or entry.get("boot") != boot:
            return None
        try:
            return VirtType(entry["virt_type"])
        except (KeyError, ValueError):
            return None

    def write(self, node: str, boot: str, virt_type: VirtType) -> None:
        """Keep what it has shown; two commands at once may lose one of two entries."""
        text = json.dumps(self._all() | {node: {"boot": boot, "virt_type": str(virt_type)}})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd, fresh = tempfile.mkstemp(dir=self._path.parent)
            with os.fdopen(fd, "w") as file:
                file.write(text)
            Path(fresh).replace(self._path)

    def _all(self) -> dict[str, object]:
        try:
            told = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}
