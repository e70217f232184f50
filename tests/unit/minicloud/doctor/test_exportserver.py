"""nbdserve, by what it says of itself."""

import pytest

from examined import NBD, by_name
from minicloud.doctor.check import Status, Subject
from minicloud.doctor.exportserver import check_export_server
from minicloud.errors import StorageError
from nbdserve import __version__

STATUS = {
    "version": __version__,
    "state": "serving",
    "state_dir": "/state",
    "overlay_dir": "/overlays",
    "overlay_space": {"size": 100 << 30, "free": 5 << 30},
    "exports": [{"name": "guest/web1", "error": None}],
}


def judged(status):
    return by_name(list(check_export_server(Subject("nbd"), NBD, status)))


def test_a_server_that_keeps_everything_is_good():
    found = judged(STATUS)
    assert {check.status for check in found.values()} == {Status.OK}
    assert found["exports opened"].text == "all 1"


def test_one_that_says_nothing_has_failed_and_the_rest_is_skipped():
    found = judged(StorageError("unreachable", "no socket at /c.sock; start nbdserve"))
    assert (found["control"].text, found["control"].remedy) == (
        "no socket at /c.sock", "start nbdserve",
    )  # fmt: skip
    assert set(found) == set(judged(STATUS))
    assert sum(check.status is Status.SKIPPED for check in found.values()) == len(found) - 1


@pytest.mark.parametrize(
    ("fact", "check", "status", "remedy"),
    [
        ({"state": "draining"}, "control", Status.WARNING, "start it again"),
        ({"version": "9"}, "version", Status.WARNING, __version__),
        ({"state_dir": None}, "state", Status.FAILED, "--state-dir"),
        ({"overlay_dir": None}, "overlays", Status.FAILED, "--overlay-dir /overlays"),
        ({"overlay_space": {"size": 100 << 30, "free": 4 << 30}}, "space", Status.WARNING, "gc"),
        ({"overlay_dir": "/other"}, "overlays", Status.FAILED, 'overlays = "/other"'),
    ],
)
def test_each_fault_has_its_remedy(fact, check, status, remedy):
    found = judged(STATUS | fact)
    assert found[check].status is status
    assert remedy in found[check].remedy
    assert all(one.status is Status.OK for name, one in found.items() if name != check)


@pytest.mark.parametrize(("fact", "check"), [("state_dir", "state"), ("overlay_dir", "overlays")])
def test_an_older_server_does_not_say_and_is_not_accused(fact, check):
    status = {key: value for key, value in STATUS.items() if key != fact}
    assert judged(status)[check].status is Status.WARNING


def test_exports_that_could_not_be_opened_are_named_but_not_all_of_a_thousand():
    exports = [{"name": f"g{n}", "error": "http: gone"} for n in range(8)]
    found = judged(STATUS | {"exports": [*STATUS["exports"], *exports]})["exports opened"]
    assert found.status is Status.FAILED
    assert found.text.startswith("8 of 9: g0: http: gone, ")
    assert found.text.endswith("g4: http: gone, and 3 more")
