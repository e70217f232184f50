"""Overlays of guests: listed, discarded with their export, deleted when nobody needs them."""

import json

import pytest

from daemon import daemon, run_nbdserve
from nbdctl_command import run_nbdctl


@pytest.fixture
def options(tmp_path):
    """A daemon that keeps exports and overlays."""
    return ["--control", tmp_path / "c", "--state-dir", tmp_path / "state", "--overlay-dir",
            tmp_path / "overlays"]  # fmt: skip


@pytest.fixture
def control(tmp_path):
    """Run `nbdctl COMMAND PART --control … WORDS`, which has to succeed."""

    def control(command, part, *words):
        done = run_nbdctl(command, part, "--control", tmp_path / "c", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return control


def test_overlays_are_listed_and_end_with_their_export_or_by_themselves(tmp_path, options, control):
    (tmp_path / "golden.img").write_bytes(bytes(1 << 20))
    folder = tmp_path / "overlays"

    def found():
        told = json.loads(control("overlay", "list", "--json"))
        assert told["folder"] == str(folder)
        return {one["name"]: one["export"] for one in told["overlays"]}

    with daemon(options=options):
        assert folder.stat().st_mode & 0o777 == 0o700
        space = json.loads(control("status", "--json"))["overlay_space"]
        assert 0 < space["free"] < space["size"]
        for name in ("a", "b"):
            layer = f"cow:path={folder / name}.cow"
            image = tmp_path / "golden.img"
            control("export", "add", name, "--layer", layer, "file", image, "lock=false")
        assert found() == {"a.cow": "a", "b.cow": "b"}
        assert "a.cow: " in control("overlay", "list")
        assert f"{folder}/a.cow is deleted" in control("export", "remove", "--discard", "a")
        assert found() == {"b.cow": "b"}
        done = run_nbdctl("overlay", "delete", "--control", tmp_path / "c", "b.cow")
        assert (done.returncode, "used by export 'b'" in done.stderr) == (1, True)
        control("export", "remove", "b")
        assert found() == {"b.cow": None}
        control("overlay", "delete", "b.cow")
        assert found() == {}
    assert (tmp_path / "golden.img").exists()


def test_an_overlay_that_two_exports_name_is_not_discarded(tmp_path, options, control):
    overlay = tmp_path / "overlays" / "a.cow"
    with daemon(options=options):
        control("export", "add", "one", "--layer", f"cow:path={overlay}", "memory", "1M")
        table = json.loads((tmp_path / "state" / "exports.json").read_text())["exports"][0]
    kept = {"v": 1, "exports": [table, {**table, "name": "two"}]}
    (tmp_path / "state" / "exports.json").write_text(json.dumps(kept))
    with daemon(options=options):
        done = run_nbdctl("export", "remove", "--control", tmp_path / "c", "--discard", "one")
        assert (done.returncode, "named by export 'two' too" in done.stderr) == (1, True)
        assert overlay.exists()


def test_under_systemd_they_lie_in_the_state_folder(tmp_path, control):
    """STATE_DIRECTORY, as systemd.exec(5) has it."""
    (tmp_path / "state").mkdir()
    environment = {"STATE_DIRECTORY": str(tmp_path / "state")}
    with daemon("null", "1M", options=["--control", tmp_path / "c"], env=environment):
        told = json.loads(control("overlay", "list", "--json"))
    assert told == {"folder": str(tmp_path / "state" / "overlays"), "overlays": []}
    assert (tmp_path / "state" / "overlays").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    done = run_nbdserve("--overlay-dir", tmp_path / "none" / "overlays", "null", "1M")
    assert (done.returncode, "--overlay-dir" in done.stderr) == (1, True)
    assert len(done.stderr.splitlines()) == 1
