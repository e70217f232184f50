"""A guest's definition kept where it survives its node: with the export server.

No database: beside `guest/NAME` there is a tiny export `domain/NAME`, whose description holds the
domain's XML and the node it was put on. It is written when the guest is made, again when it moves,
and read by `recover` when its node has died. A description goes to whoever lists exports, so no
password may stand in that XML; minicloud writes none, and libvirt gives none without being asked.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from minicloud.domain.names import RECORD_PREFIX, record_export_name

__all__ = ["Record", "parse_record", "record_export", "records"]

_MARK: Final = "minicloud-domain/1 "
_LONGEST: Final = 4096  # bytes of a string in NBD (proto.md, "Strings")
_MOST_XML: Final = 1 << 20  # bytes a record may unpack to; libvirt itself takes no larger XML
_SIZE: Final = 512  # bytes of the export; nobody reads it


@dataclass(frozen=True, slots=True)
class Record:
    """What has to be known to start a guest again.

    Attributes:
        node: the name of the node it was put on.
        xml: the domain's, as it was defined.
    """

    node: str
    xml: str


def record_export(name: str, record: Record) -> Mapping[str, Any]:
    """Make the [[export]] table that keeps a guest's record.

    Args:
        name: the guest's.
        record: of it.

    Raises:
        ValueError: it is too long to be kept; a domain of 20 KB of XML is not.
    """
    kept = json.dumps({"node": record.node, "xml": record.xml}, separators=(",", ":"))
    text = _MARK + base64.b64encode(zlib.compress(kept.encode(), 9)).decode()
    if len(text) > _LONGEST:
        raise ValueError(f"the definition of {name} takes {len(text)} bytes, at most {_LONGEST}")
    return {
        "name": record_export_name(name),
        "description": text,
        "read-only": True,
        "source": {"type": "null", "size": _SIZE},
    }


def parse_record(description: str) -> Record | None:
    """Read a description; None if it holds no record, or none of this version."""
    if not description.startswith(_MARK):
        return None
    try:
        packed = base64.b64decode(description.removeprefix(_MARK), validate=True)
        unpacking = zlib.decompressobj()
        kept = json.loads(unpacking.decompress(packed, _MOST_XML))
        return Record(node=str(kept["node"]), xml=str(kept["xml"]))
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError):
        return None


def records(descriptions: Mapping[str, str]) -> Mapping[str, Record]:
    """Pick the records out of all exports.

    Args:
        descriptions: by the export's name.

    Returns:
        Records by the guest's name.
    """
    found: dict[str, Record] = {}
    for name, description in descriptions.items():
        record = parse_record(description) if name.startswith(RECORD_PREFIX) else None
        if record is not None:
            found[name.removeprefix(RECORD_PREFIX)] = record
    return found
