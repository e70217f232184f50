"""What minicloud knows of a guest, in the domain's own <metadata>: it goes where the guest goes.

libvirt keeps the element as it is, over migrations and restarts (libvirt.org/formatdomain.html,
"General metadata"). What it does not understand it does not touch, so there is no other database.

Invariant: what cannot be read is None, never an error: a domain made by a later version, or by
hand, is then one that minicloud did not make.
"""

from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree as ET

from minicloud.model.guest import GuestKind, Origin

__all__ = ["NAMESPACE", "PREFIX", "origin_element", "public_image", "read_origin"]

NAMESPACE: Final = "https://nbdserve.org/minicloud/1"
PREFIX: Final = "minicloud"

_TAG: Final = f"{{{NAMESPACE}}}guest"


def origin_element(origin: Origin) -> ET.Element:
    """Make the element that stands in <metadata>."""
    ET.register_namespace(PREFIX, NAMESPACE)
    values = {
        "kind": str(origin.kind),
        "template": origin.template,
        "image": origin.image,
        "export": origin.export,
        "seed": origin.seed,
        "created": origin.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user": origin.user,
    }
    return ET.Element(_TAG, {key: value for key, value in values.items() if value})


def read_origin(xml: str) -> Origin | None:
    """Read a domain's XML, or its metadata element alone.

    Returns:
        What minicloud wrote; None if it wrote nothing, or nothing that can be understood.
    """
    try:
        root = ET.fromstring(xml)  # noqa: S314 -- libvirtd's own; expat bounds what entities become
    except ET.ParseError:
        return None
    element = root if root.tag == _TAG else root.find(f"./metadata/{_TAG}")
    if element is None:
        return None
    try:
        return Origin(
            kind=GuestKind(element.attrib["kind"]),
            template=element.attrib["template"],
            image=element.get("image", ""),
            export=element.attrib["export"],
            seed=element.get("seed"),
            created=datetime.fromisoformat(element.attrib["created"]).astimezone(UTC),
            user=element.get("user", ""),
        )
    except (KeyError, ValueError):
        return None


def public_image(image: str) -> str:
    """Take out of an image's URL what only its owner should know: user, password, query.

    A domain's XML is read by whoever may list guests.
    """
    parts = urlsplit(image)
    if not parts.scheme or not parts.netloc:
        return image
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
