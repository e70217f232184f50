"""The XML of guests is libvirt's: its schema says so, and libvirt itself reads it."""

import re
import subprocess

import libvirt
import pytest

from guestplans import PLANS
from minicloud.domain.metadata import read_origin
from minicloud.domain.xml import domain_xml, reconnect_kept


@pytest.fixture
def connection():
    """libvirt's driver for tests, which parses as every other and starts nothing."""
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_it_keeps_to_the_schema(plan, tmp_path):
    """Without reconnect, which the schema of libvirt 9.0 does not have; nothing else is unknown."""
    path = tmp_path / "guest.xml"
    path.write_text(re.sub("<reconnect [^>]*>", "", domain_xml(plan)))
    done = subprocess.run(
        ["virt-xml-validate", path, "domain"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_schema_would_notice_a_wrong_element(tmp_path):
    path = tmp_path / "guest.xml"
    path.write_text(domain_xml(PLANS["qemu-tcp-cattle"]).replace("error_policy", "eror_policy"))
    done = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, check=False)
    assert done.returncode != 0


def test_libvirt_keeps_what_minicloud_says_of_a_guest(connection):
    plan = PLANS["kvm-tcp-pet-seed"]
    domain = connection.defineXML(domain_xml(plan).replace('type="kvm"', 'type="test"', 1))
    described = domain.XMLDesc(0)
    assert read_origin(described) == plan.origin
    assert (domain.name(), domain.UUIDString()) == (plan.name, plan.uuid)
    assert domain.maxMemory() * 1024 == plan.memory
    if libvirt.getVersion() < 9_008_000:
        assert not reconnect_kept(described), "dropped in silence before 9.8"
