"""A guest's definition in an export's description."""

import base64
import json
import zlib

import pytest

from minicloud.moving.record import Record, parse_record, record_export, records

XML = "<domain type='kvm'><name>web1</name><title>größer &lt; \N{SNOWMAN}</title></domain>\n"
RECORD = Record("ham1", XML)


def packed(value):
    return (
        "minicloud-domain/1 " + base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()
    )


def test_a_record_comes_back_as_it_was():
    table = record_export("web1", RECORD)

    assert table["name"] == "domain/web1"
    assert parse_record(table["description"]) == RECORD


def test_nobody_can_write_to_its_export():
    assert record_export("web1", RECORD)["read-only"] is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "disk of guest web1, template debian",
        "minicloud-domain/1 ",
        "minicloud-domain/1 ????",
        "minicloud-domain/1 " + base64.b64encode(b"no zlib").decode(),
        "minicloud-domain/2 " + packed({"node": "a", "xml": "b"}).split()[1],
        packed(["node", "xml"]),
        packed({"node": "ham1"}),
        packed({"node": "ham1", "xml": "x" * (2 << 20)}),
    ],
)
def test_what_is_no_record_is_none(text):
    assert parse_record(text) is None


def test_a_definition_that_does_not_fit_is_refused():
    hardly_packed = "".join(f"{number * 7919 % 65521:04x}" for number in range(4000))

    with pytest.raises(ValueError, match=r"web1 takes \d+ bytes, at most 4096"):
        record_export("web1", Record("ham1", hardly_packed))


def test_only_exports_of_records_are_read():
    text = record_export("web1", RECORD)["description"]

    found = records({"domain/web1": text, "guest/web2": text, "domain/web3": "no record"})

    assert found == {"web1": RECORD}
