"""The file is there whole or not at all, and nothing lies beside it."""

import os
import secrets

import pytest

from nbdserve.errors import DeviceError
from nbdserve.packing.outputfile import OutputFile


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_committed_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "out"
    with OutputFile(path, force=False) as output:
        output.write([b"one", b"", b"two"])
        assert not path.exists()
        output.commit()
    assert path.read_bytes() == b"onetwo"
    assert names(tmp_path) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_is_not_committed_leaves_nothing(tmp_path):
    def interrupted():
        with OutputFile(tmp_path / "out", force=False) as output:
            output.write([b"half"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_what_is_there_is_kept_without_force(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(DeviceError, match="--force"):
        OutputFile(path, force=False)
    assert path.read_text() == "old"


def test_what_comes_meanwhile_is_kept_without_force(tmp_path):
    path = tmp_path / "out"
    with OutputFile(path, force=False) as output:
        path.write_text("somebody else's")
        with pytest.raises(DeviceError, match="--force"):
            output.commit()
    assert path.read_text() == "somebody else's"
    assert names(tmp_path) == ["out"]


def test_force_replaces_only_when_all_is_written(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with OutputFile(path, force=True) as output:
        output.write([b"new"])
        assert path.read_text() == "old"
        output.commit()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_two_of_one_process_id_do_not_mix(tmp_path):
    """As of two containers that share a folder."""
    path = tmp_path / "out"
    with OutputFile(path, force=True) as one, OutputFile(path, force=True) as other:
        one.write([b"one"])
        other.write([b"another"])
        one.commit()
        assert path.read_text() == "one"
        other.commit()
    assert path.read_text() == "another"
    assert names(tmp_path) == ["out"]


def test_what_lies_beside_it_is_not_followed_or_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".out.guessed.part").symlink_to("victim")
    with pytest.raises(DeviceError, match="cannot be written"):
        OutputFile(tmp_path / "out", force=True)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "images").mkdir()
    path = tmp_path / "link"
    path.symlink_to("images/real")
    with OutputFile(path, force=True) as output:
        output.commit()
    assert path.is_symlink()
    assert names(tmp_path / "images") == ["real"]


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_file_is_never_replaced(path):
    with pytest.raises(DeviceError, match="name a file"):
        OutputFile(path, force=True)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DeviceError, match="make its folder"):
        OutputFile(tmp_path / "none" / "out", force=False)
