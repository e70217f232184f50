"""The added exports, kept: whole, once, and only by one daemon."""

import base64
import json
import stat

import pytest

from nbdserve.build import resolve
from nbdserve.config import read_export
from nbdserve.errors import DeviceError
from nbdserve.server.exports import Added
from nbdserve.server.state import AddedExports

DISK = {"name": "disk", "source": {"type": "memory", "size": "1M"}, "layers": ["readonly"]}
ODD = {"name": "odd", "source": "no-such-source"}


def added_now(table, since=1000.5):
    return Added(read_export(table), table, since)


def kept(folder):
    return AddedExports.kept_in(folder)


def test_what_is_saved_is_there_again(tmp_path):
    folder = tmp_path / "state"
    with kept(folder) as added:
        assert added.exports == []
        assert added.is_kept
        added.save([added_now(DISK)])
    with kept(folder) as added:
        ((spec, table, since),) = added.exports
    assert (spec.name, spec.source.name, spec.layers[0].name) == ("disk", "memory", "readonly")
    assert (table, since) == (DISK, 1000.5)
    assert stat.S_IMODE((folder / "exports.json").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["exports.json", "lock"]


def test_what_an_older_version_kept_has_no_age(tmp_path):
    (tmp_path / "exports.json").write_text(json.dumps({"v": 1, "exports": [DISK]}))
    with kept(tmp_path) as added:
        assert [(one.spec.name, one.since) for one in added.exports] == [("disk", None)]


def test_without_a_folder_nothing_is_kept():
    with kept(None) as added:
        added.save([added_now(DISK)])
        assert not added.is_kept


def test_what_is_not_understood_any_more_is_not_lost(tmp_path, caplog):
    (tmp_path / "exports.json").write_text(json.dumps({"v": 1, "exports": [DISK, ODD]}))
    with kept(tmp_path) as added:
        assert [one.spec.name for one in added.exports] == ["disk"]
        assert "no-such-source" in caplog.text
        added.save([])
    assert json.loads((tmp_path / "exports.json").read_text())["exports"] == [ODD]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"v": 1}',
        '{"v": 2, "exports": []}',
        '{"v": 1, "exports": [5]}',
        '{"v": 1, "exports": [], "since": []}',
        '{"v": 1, "exports": [], "since": {"disk": "long ago"}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_list_is_not_taken_for_an_empty_one(tmp_path, content):
    (tmp_path / "exports.json").write_text(content)
    with pytest.raises(DeviceError, match=r"exports\.json"), kept(tmp_path):
        pass
    assert (tmp_path / "exports.json").read_text() == content


def test_two_daemons_do_not_share_a_folder(tmp_path):
    with kept(tmp_path), pytest.raises(DeviceError, match="another nbdserve"), kept(tmp_path):
        pass
    with kept(tmp_path):
        pass  # the lock ended with the first


def test_a_folder_that_cannot_be_is_told(tmp_path):
    with pytest.raises(DeviceError, match="--state-dir"), kept(tmp_path / "none" / "state"):
        pass


def test_a_list_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with kept(tmp_path) as added:
        added.save([added_now(DISK)])
        (tmp_path / "exports.json").rename(tmp_path / "aside")
        (tmp_path / "exports.json").mkdir()
        with pytest.raises(DeviceError):
            added.save([])
    assert json.loads((tmp_path / "aside").read_text())["exports"] == [DISK]


def test_a_seed_of_512_kib_is_there_again_and_nobody_elses_to_read(tmp_path):
    seed = bytes(range(256)) * 2048
    table = {
        "name": "seed/web1",
        "source": {"type": "data", "base64": base64.b64encode(seed).decode()},
    }
    with kept(tmp_path) as added:
        added.save([added_now(table)] * 3)
    assert stat.S_IMODE((tmp_path / "exports.json").stat().st_mode) == 0o600
    with kept(tmp_path) as added:
        (_, _, params), *_ = [resolve(one.spec)[0][1:] for one in added.exports]
        assert (params.base64, len(added.exports)) == (seed, 3)
