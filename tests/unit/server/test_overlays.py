"""Overlay files: found, told whose they are, and deleted only where that harms nobody."""

import fcntl
import os

import pytest

from nbdserve.errors import DeviceError
from nbdserve.formats.overlay import Header
from nbdserve.overlay.overlayfile import OverlayFile
from nbdserve.server.exports import Slot
from nbdserve.server.overlays import OverlayUsers, delete_overlay, list_overlays, overlay_paths
from nbdserve.spec import ElementSpec, ExportSpec

SIZE = 1 << 20


def made(path):
    """Make an overlay of a megabyte."""
    OverlayFile.create(path, Header(64 << 10, SIZE, bytes(32))).close()
    return path


def over(*paths, name="guest/web1"):
    """An export whose layers keep these overlays, the first nearest the client."""
    layers = tuple(ElementSpec("cow", (("path", str(path)),)) for path in paths)
    return Slot(ExportSpec(ElementSpec("memory", (("", "1M"),)), layers, name))


def test_only_overlays_right_in_the_folder_are_listed(tmp_path):
    folder = tmp_path / "overlays"
    (folder / "sub").mkdir(parents=True)
    made(folder / "b.cow")
    made(folder / "a.cow")
    made(folder / "sub" / "c.cow")
    outside = made(tmp_path / "outside.cow")
    (folder / "link.cow").symlink_to(outside)
    (folder / "notes.txt").write_text("no overlay")
    (folder / "empty").touch()
    os.mkfifo(folder / "fifo")
    found = list_overlays(folder)
    assert [one.path.name for one in found] == ["a.cow", "b.cow"]
    status = (folder / "a.cow").stat()
    assert (found[0].size, found[0].mtime) == (SIZE, status.st_mtime)
    assert 0 < found[0].allocated == status.st_blocks * 512


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(DeviceError, match="--overlay-dir"):
        list_overlays(tmp_path / "none")


def test_the_overlays_of_an_export_are_those_its_layers_name(tmp_path):
    slot = over(tmp_path / "top.cow", tmp_path / "low.cow")
    assert sorted(overlay_paths(slot.spec)) == [tmp_path / "low.cow", tmp_path / "top.cow"]
    scratch = ExportSpec(ElementSpec("memory", (("", "1M"),)), (ElementSpec("cow"),))
    assert overlay_paths(scratch) == []
    cached = ElementSpec("cache", (("path", str(tmp_path / "cache")), ("size", "1M")))
    assert overlay_paths(ExportSpec(ElementSpec("null", (("", 1),)), (cached,))) == []


def test_the_export_of_an_overlay_is_found_by_any_of_the_names_of_its_file(tmp_path):
    (tmp_path / "alias").symlink_to(tmp_path)
    slots = [over(tmp_path / "a.cow"), over(tmp_path / "alias" / "b.cow", name="guest/web2")]
    users = OverlayUsers(slots)
    assert [users.of(tmp_path / name) for name in ("a.cow", "b.cow", "c.cow")] == [
        "guest/web1", "guest/web2", None,
    ]  # fmt: skip


def test_an_overlay_is_deleted(tmp_path):
    path = made(tmp_path / "a.cow")
    delete_overlay(path)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        delete_overlay(path)


@pytest.mark.parametrize("lock", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_one_that_is_open_is_not_deleted(tmp_path, lock):
    path = made(tmp_path / "a.cow")
    with path.open("rb") as file:
        fcntl.flock(file, lock)
        with pytest.raises(DeviceError, match="in use"):
            delete_overlay(path)
    assert path.exists()


def test_what_is_no_overlay_is_not_deleted(tmp_path):
    overlay = made(tmp_path / "a.cow")
    (tmp_path / "notes").write_text("precious")
    (tmp_path / "link.cow").symlink_to(overlay)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("notes", "is not an overlay"),
        ("link.cow", "symbolic link"),
        ("fifo", "left alone"),
        ("folder", "left alone"),
    ):
        with pytest.raises(DeviceError, match=told):
            delete_overlay(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 5


def test_one_that_was_deleted_before_it_was_locked_is_not_opened(tmp_path, monkeypatch):
    """Else an export would write into a file without a name, which ends with it."""
    path = made(tmp_path / "a.cow")
    real = fcntl.flock

    def flock(fd, kind):
        path.unlink(missing_ok=True)
        real(fd, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(FileNotFoundError):
        OverlayFile.open(path, read_only=False)


def test_what_has_come_in_its_place_is_not_deleted(tmp_path, monkeypatch):
    path = made(tmp_path / "disk.cow")
    made(tmp_path / "new")
    real = fcntl.flock

    def replaced_meanwhile(fd, how):
        (tmp_path / "new").replace(path)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", replaced_meanwhile)
    with pytest.raises(DeviceError, match="replaced just now"):
        delete_overlay(path)
    assert path.exists()
