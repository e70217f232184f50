"""A source and layers whose opening and closing are scripted, to be named in a spec."""

import contextlib
from dataclasses import dataclass, field

from nbdserve import registry
from nbdserve.absent import Absent
from nbdserve.device import Capability, Device, DeviceInfo, Passthrough
from nbdserve.params import TEXT, param
from nbdserve.spec import ElementSpec, ExportSpec
from nbdserve.testing.faults import Gate

SIZE = 1 << 20


@dataclass
class Script:
    """What happens when the elements that go by one name are opened.

    Attributes:
        said: what they did, e.g. "open", "close".
        errors: what opening raises, one after the other; then it succeeds.
        opening, closing: where to wait before it is done.
        byte: what the source holds.
        survives: whether a keeper can be opened without its inner.
        kept: what a keeper remembers.
    """

    said: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    opening: Gate = field(default_factory=Gate)
    closing: Gate = field(default_factory=Gate)
    byte: int = 0x55
    survives: bool = True
    kept: dict[str, dict[tuple[int, int], bytes]] = field(default_factory=dict)

    def __post_init__(self):
        self.opening.release()
        self.closing.release()

    async def open(self):
        self.said.append("open")
        await self.opening.enter()
        if self.errors:
            raise self.errors.pop(0)

    async def close(self):
        await self.closing.enter()
        self.said.append("close")


SCRIPTS: dict[str, Script] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedParams:
    name: str = param(TEXT, argument=True, help="whose script it follows")


class ScriptedSource(Device):
    """A disk of one byte, repeated."""

    Params = ScriptedParams
    shareable = True

    def __init__(self, params):
        self.script = SCRIPTS[params.name]
        self.read_only = None

    @property
    def info(self):
        return DeviceInfo(SIZE, can=Capability.NONE if self.read_only else Capability.WRITES)

    @property
    def identity(self):
        return f"all {self.script.byte}"

    async def open(self, *, read_only):
        self.read_only = read_only
        await self.script.open()

    async def close(self):
        await self.script.close()

    async def read_into(self, offset, view):
        view[:] = bytes((self.script.byte,)) * len(view)


class ScriptedLayer(Passthrough):
    """A layer that passes everything on and shares."""

    Params = ScriptedParams
    shareable = True

    def __init__(self, inner, params):
        super().__init__(inner)
        self.script = SCRIPTS[params.name]

    async def open(self, *, read_only):
        await self.script.open()

    async def close(self):
        await self.script.close()


class KeeperLayer(ScriptedLayer):
    """The same, and remembers the pages that were read: it serves those without its inner.

    Its script's `kept` outlives it, as a cache on disk would: pages by what lies beneath.
    """

    @property
    def survives_inner(self):
        return self.script.survives

    async def is_ready_alone(self):
        return self.beneath in self.script.kept

    @property
    def info(self):
        return DeviceInfo(SIZE)

    async def read_into(self, offset, view):
        kept = self.script.kept.setdefault(self.beneath, {})
        page = (offset, len(view))
        if page not in kept:
            inner = self.inner
            if isinstance(inner, Absent):
                inner = await inner.arrive()
            kept[page] = await inner.read(*page)
        view[:] = kept[page]

    def read_into_nowait(self, offset, view):
        return False


class SelfishLayer(ScriptedLayer):
    """The same, and does not share."""

    shareable = False


@contextlib.contextmanager
def installed(monkeypatch):
    """Make `scripted`, `selfish` and `keeper` known for one test; gives its scripts by name."""
    monkeypatch.setitem(registry._SOURCES, "scripted", "scripted:ScriptedSource")
    monkeypatch.setitem(registry._LAYERS, "scripted", "scripted:ScriptedLayer")
    monkeypatch.setitem(registry._LAYERS, "selfish", "scripted:SelfishLayer")
    monkeypatch.setitem(registry._LAYERS, "keeper", "scripted:KeeperLayer")
    SCRIPTS.clear()
    yield SCRIPTS
    SCRIPTS.clear()


def chain_of(source, *layers, read_only=True):
    """Write the spec of a chain: each element a name, or a kind and a name (`selfish a`)."""
    elements = []
    for words in (source, *layers):
        kind, _, name = words.rpartition(" ")
        SCRIPTS.setdefault(name, Script())
        elements.append(ElementSpec(kind or "scripted", (("name", name),)))
    return ExportSpec(elements[0], tuple(elements[1:]), read_only=read_only)
