from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from xml.etree import ElementTree as ET

import pytest

from guestplans import PLANS, make_origin
from minicloud.domain.metadata import NAMESPACE, origin_element, public_image, read_origin
from minicloud.domain.xml import domain_xml
from minicloud.model.guest import GuestKind


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_an_origin_comes_back_from_the_domain(plan):
    assert read_origin(domain_xml(plan)) == plan.origin


@pytest.mark.parametrize(
    "origin",
    [
        make_origin(kind=GuestKind.PET, seed=True),
        replace(make_origin(), user='a "b" <c>&', image=""),
        replace(make_origin(), created=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))),
    ],
)  # fmt: skip
def test_an_origin_comes_back_from_the_element_alone(origin):
    assert read_origin(ET.tostring(origin_element(origin), encoding="unicode")) == origin


def test_the_time_is_told_in_utc():
    east = timezone(timedelta(hours=2))
    origin = replace(make_origin(), created=datetime(2026, 1, 1, 1, tzinfo=east))
    element = origin_element(origin)
    assert element.get("created") == "2025-12-31T23:00:00Z"
    assert read_origin(ET.tostring(element, encoding="unicode")).created.tzinfo is UTC


ELEMENT = f'<m:guest xmlns:m="{NAMESPACE}" '


@pytest.mark.parametrize(
    "xml",
    [
        "<domain><name>other</name></domain>",
        "<domain><metadata><x xmlns='https://other.example/'/></metadata></domain>",
        "no xml",
        "",
        f'{ELEMENT}kind="horse" template="t" export="guest/a" created="2026-01-01T00:00:00Z"/>',
        f'{ELEMENT}kind="pet" template="t" export="guest/a" created="yesterday"/>',
        f'{ELEMENT}kind="pet" template="t" created="2026-01-01T00:00:00Z"/>',
    ],
)
def test_what_minicloud_did_not_write_is_none(xml):
    assert read_origin(xml) is None


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("https://anna:pw@images.example:8443/a.xz?token=1#x", "https://images.example:8443/a.xz"),
        ("https://images.example/a.xz", "https://images.example/a.xz"),
        ("/srv/images/a@b.raw", "/srv/images/a@b.raw"),
    ],
)
def test_an_image_is_told_without_its_secrets(image, told):
    assert public_image(image) == told
