"""What a node's own shell says of it: one command there, whose output is read here."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

__all__ = ["CUSTOMIZE", "KvmDevice", "Survey", "parse_survey", "survey_command"]

CUSTOMIZE: Final = "virt-customize"

_SCRIPT: Final = f"""
LC_ALL=C; export LC_ALL
echo "time $(date +%s.%N)"
echo "arch $(uname -m)"
for one in /sys/module/kvm_*; do [ -d "$one" ] && echo "module ${{one##*/}}"; done
[ -e /dev/kvm ] && echo "kvm $(stat -L -c '%a %U %G' /dev/kvm)"
command -v {CUSTOMIZE} >/dev/null 2>&1 && echo "tool {CUSTOMIZE}"
:
"""


@dataclass(frozen=True, slots=True)
class KvmDevice:
    """The node's /dev/kvm.

    Attributes:
        mode: its permission bits.
        owner: user it belongs to.
        group: likewise.
    """

    mode: int
    owner: str
    group: str

    @property
    def is_for_guests(self) -> bool:
        """Whether somebody beside its owner may use it; qemu runs as a user of its own."""
        return self.mode & 0o006 == 0o006 or (self.mode & 0o060 == 0o060 and self.group != "root")

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.owner}:{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a node says.

    Attributes:
        seconds: since 1970, by its clock; None where it did not say.
        arch: of its kernel, or "".
        modules: those of the kernel's that begin with `kvm_`.
        kvm: its /dev/kvm, if there is one.
        tools: those programs minicloud may want that are there.
    """

    seconds: float | None = None
    arch: str = ""
    modules: Collection[str] = ()
    kvm: KvmDevice | None = None
    tools: Collection[str] = ()


def survey_command() -> list[str]:
    """Return the command that looks."""
    return ["sh", "-c", _SCRIPT]


def parse_survey(text: str) -> Survey:
    """Read what it printed; lines it did not print (a greeting) are passed over."""
    seconds: float | None = None
    arch = ""
    kvm: KvmDevice | None = None
    modules: set[str] = set()
    tools: set[str] = set()
    for line in text.splitlines():
        match line.split():
            case ["time", written]:
                seconds = _seconds(written)
            case ["arch", arch]:
                pass
            case ["module", name]:
                modules.add(name)
            case ["kvm", mode, owner, group] if mode.isdecimal():
                kvm = KvmDevice(int(mode, 8), owner, group)
            case ["tool", name]:
                tools.add(name)
    return Survey(seconds=seconds, arch=arch, modules=modules, kvm=kvm, tools=tools)


def _seconds(written: str) -> float | None:
    whole, _, part = written.partition(".")
    try:
        return float(f"{whole}.{part}" if part.isdecimal() else whole)  # busybox knows no %N
    except ValueError:
        return None
