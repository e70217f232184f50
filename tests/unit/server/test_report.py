"""What status tells, out of plain parts."""

from types import SimpleNamespace

import pytest

from nbdserve.device import NoParams
from nbdserve.layers.readonly import ReadonlyLayer
from nbdserve.server.exports import Export, Slot, export_facts
from nbdserve.server.report import report_export
from nbdserve.sources.null import NullParams, NullSource
from nbdserve.spec import ElementSpec, ExportSpec

SPEC = ExportSpec(ElementSpec("null"), (ElementSpec("readonly"),), "disk", "a disk")


class Talkative(ReadonlyLayer):
    def status(self):
        return {"hits": 3, "rate": 0.5, "full": False, "where": self}

    def __str__(self):
        return "here"


class Broken(ReadonlyLayer):
    def status(self):
        raise ValueError("oops")


def slot(layer, spec=SPEC):
    source = NullSource(NullParams(size=4096))
    outermost = layer(source, NoParams())
    facts = export_facts(spec, outermost.info)
    chain = SimpleNamespace(devices=(source, outermost))
    return Slot(spec, chain=chain, export=Export(outermost, facts))


def test_an_open_export_tells_its_devices_nearest_the_client_first():
    found = report_export(slot(Talkative), 2)
    assert found["devices"] == [
        {"element": "readonly", "status": {"hits": 3, "rate": 0.5, "full": False, "where": "here"}},
        {"element": "null", "status": {}},
    ]
    assert (found["name"], found["size"], found["connections"]) == ("disk", 4096, 2)
    assert "read_only" in found["flags"]
    assert "has_flags" not in found["flags"]


def test_a_device_that_cannot_tell_hides_no_other():
    devices = report_export(slot(Broken), 0)["devices"]
    assert devices[0]["status"] == {"error": "ValueError: oops"}
    assert devices[1]["element"] == "null"


def test_one_device_may_stand_in_for_several_elements():
    """As `absent` does for all that cannot be opened beneath a cache."""
    spec = ExportSpec(ElementSpec("http"), (ElementSpec("readonly"), ElementSpec("xz")))
    devices = report_export(slot(Talkative, spec), 0)["devices"]
    assert [device["element"] for device in devices] == ["readonly", "xz", "http"]
    assert devices[2]["status"] == {}


def test_an_export_that_is_not_open_tells_why_and_what_it_would_be():
    found = report_export(Slot(SPEC, failure="the mirror is away"), 0)
    assert (found["open"], found["error"], found["size"]) == (False, "the mirror is away", None)
    assert [device["element"] for device in found["devices"]] == ["readonly", "null"]


@pytest.mark.parametrize(("since", "age"), [(None, None), (1000.0, 60.5), (2000.0, 0.0)])
def test_an_added_export_tells_its_age_and_never_less_than_none(monkeypatch, since, age):
    monkeypatch.setattr("time.time", lambda: 1060.5)  # 2000 is before a clock was set back
    assert report_export(Slot(SPEC, {}, since), 0)["age"] == age
