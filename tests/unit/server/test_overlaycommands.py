"""The commands about overlays: what is named by whom, and what lies outside the folder."""

import pytest

from nbdserve.control.messages import CommandError, FailureKind
from nbdserve.formats.overlay import Header
from nbdserve.overlay.overlayfile import OverlayFile
from nbdserve.server.clients import Clients
from nbdserve.server.exports import Exports
from nbdserve.server.limits import Limits
from nbdserve.server.overlaycommands import OverlayCommands
from nbdserve.server.report import Service
from nbdserve.spec import ElementSpec, ExportSpec


async def report(facts):
    raise AssertionError(f"nothing to report: {facts}")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "overlays").mkdir()
    return tmp_path / "overlays"


@pytest.fixture
async def commands(folder):
    cow = ElementSpec("cow", (("path", str(folder / "used.cow")),))
    spec = ExportSpec(ElementSpec("memory", (("", "1M"),)), (cow,), "guest/used")
    exports = await Exports.open([spec], keep_going=False)
    OverlayFile.create(folder / "free.cow", Header(64 << 10, 1 << 20, bytes(32))).close()
    yield OverlayCommands(Service(exports, Clients(exports, Limits(), most=1)), folder)
    await exports.close()


async def failing(command, given):
    with pytest.raises(CommandError) as caught:
        await command(given, report)
    return caught.value.kind, str(caught.value)


async def test_each_is_listed_with_the_export_that_names_it(commands, folder):
    for given in ({}, {"folder": str(folder)}):
        told = await commands.list(given, report)
        assert told["folder"] == str(folder)
        found = [(one["name"], one["export"], one["size"]) for one in told["overlays"]]
        assert found == [("free.cow", None, 1 << 20), ("used.cow", "guest/used", 1 << 20)]
        assert told["overlays"][0]["path"] == str(folder / "free.cow")


async def test_no_other_folder_is_listed(commands, folder):
    kind, text = await failing(commands.list, {"folder": str(folder.parent)})
    assert (kind, str(folder) in text) == (FailureKind.ARGUMENT, True)


@pytest.mark.parametrize("whole", [False, True])
async def test_one_that_nobody_names_is_deleted(commands, folder, whole):
    path = folder / "free.cow"
    told = await commands.delete({"path": str(path) if whole else path.name}, report)
    assert told == {"path": str(path)}
    assert not path.exists()
    kind, _ = await failing(commands.delete, {"path": path.name})
    assert kind is FailureKind.ARGUMENT


async def test_one_that_an_export_names_is_not_deleted(commands, folder):
    kind, text = await failing(commands.delete, {"path": "used.cow"})
    assert (kind, "guest/used" in text) == (FailureKind.BUSY, True)
    assert (folder / "used.cow").exists()


@pytest.mark.parametrize(
    "given", ["", ".", "..", "../free.cow", "sub/../free.cow", "/etc/passwd", "a\0b", "sub/x.cow"]
)
async def test_nothing_outside_the_folder_is_deleted(commands, folder, given):
    OverlayFile.create(folder.parent / "free.cow", Header(64 << 10, 1 << 20, bytes(32))).close()
    kind, text = await failing(commands.delete, {"path": given})
    assert (kind, "right in" in text) == (FailureKind.ARGUMENT, True)
    assert (folder.parent / "free.cow").exists()


async def test_without_a_folder_it_is_told(commands):
    commands._path = None
    for command, given in ((commands.list, {}), (commands.delete, {"path": "a"})):
        kind, text = await failing(command, given)
        assert (kind, "--overlay-dir" in text) == (FailureKind.ARGUMENT, True)
