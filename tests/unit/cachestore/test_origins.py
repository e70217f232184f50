"""What is noted of the origin of a cached image."""

import pytest

from nbdserve.cachestore.origins import Origin, recall_origin, remember_origin
from nbdserve.device import BlockSize

ORIGIN = Origin("http://é/x etag 5", 5, BlockSize(1, 4096, 1 << 20))


def test_it_is_recalled_by_how_the_chain_was_written(tmp_path):
    remember_origin(tmp_path, "one", ORIGIN)
    assert recall_origin(tmp_path, "one") == ORIGIN
    assert recall_origin(tmp_path, "other") is None


def test_the_latest_counts(tmp_path):
    remember_origin(tmp_path, "one", ORIGIN)
    later = Origin("later", 6, ORIGIN.block_size)
    remember_origin(tmp_path, "one", later)
    assert recall_origin(tmp_path, "one") == later
    assert len(list(tmp_path.iterdir())) == 1


def test_what_has_not_changed_is_not_written(tmp_path):
    remember_origin(tmp_path, "one", ORIGIN)
    (note,) = tmp_path.iterdir()
    before = note.stat().st_ino
    remember_origin(tmp_path, "one", ORIGIN)
    assert note.stat().st_ino == before


@pytest.mark.parametrize("place", [0, 5, 12, 30, -3])
def test_damage_is_told_and_nothing_is_believed(tmp_path, caplog, place):
    remember_origin(tmp_path, "one", ORIGIN)
    (note,) = tmp_path.iterdir()
    data = bytearray(note.read_bytes())
    data[place] ^= 1
    note.write_bytes(data)
    assert recall_origin(tmp_path, "one") is None
    assert "of no use" in caplog.text


def test_another_version_is_of_no_use(tmp_path, caplog, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr("nbdserve.cachestore.origins._VERSION", 2)
        remember_origin(tmp_path, "one", ORIGIN)
    assert recall_origin(tmp_path, "one") is None
    assert "format version 2" in caplog.text
