"""`domain_xml` against golden files; MINICLOUD_GOLDEN=write writes them anew, to be read."""

import os
from pathlib import Path

import pytest

from guestplans import PLANS
from minicloud.domain.xml import domain_xml, reconnect_kept

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_written_as_in_the_golden_file(name):
    path = GOLDEN / f"{name}.xml"
    written = domain_xml(PLANS[name])
    if os.environ.get("MINICLOUD_GOLDEN") == "write":
        path.write_text(written)
    assert written == path.read_text()


def test_there_is_no_golden_file_without_a_plan():
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(PLANS)


def test_a_reconnect_that_one_disk_lost_is_noticed():
    xml = domain_xml(PLANS["kvm-tcp-pet-seed"])
    assert reconnect_kept(xml)
    assert not reconnect_kept(xml.replace('<reconnect delay="60" />', "", 1))
