"""The exports of a guest as nbdserve's [[export]] tables. Pure.

A guest's disk is a copy-on-write layer over its template's image. All guests of one image share
what lies beneath: one index, one cache, one fetch of each block.
"""

import base64
import lzma
from collections.abc import Mapping
from typing import Any

from minicloud.domain.names import guest_export_name, overlay_path, seed_export_name
from minicloud.model.inventory import NbdService, Template
from nbdserve.spec import ElementSpec, parse_layer

__all__ = ["guest_export", "seed_export"]


def guest_export(
    template: Template, name: str, nbd: NbdService, *, size: int | None = None
) -> Mapping[str, Any]:
    """Make the table of a guest's disk.

    Args:
        template: what is on it.
        name: the guest's.
        nbd: the server; says where overlays are kept.
        size: bytes it is grown to; None takes the template's, and if that has none the image's.

    Raises:
        ConfigError: a layer of the template is not NAME:key=value,…
    """
    size = template.size if size is None else size
    return {
        "name": guest_export_name(name),
        "description": f"disk of guest {name}, template {template.name}",
        # two guests on one disk would destroy it; a migration is let through by a handover
        "exclusive": True,
        "layers": [
            {"type": "cow", "path": overlay_path(nbd.overlays, name)},
            *([] if size is None else [{"type": "grow", "size": size}]),
            *(_element(parse_layer(layer)) for layer in template.layers),
        ],
        "source": _source(template),
    }


def seed_export(name: str, image: bytes) -> Mapping[str, Any]:
    """Make the table of a guest's cloud-init seed, which holds the image itself.

    It is kept in xz: an image is mostly empty, and 67 KB of it become less than one.
    """
    packed = lzma.compress(image, lzma.FORMAT_XZ, lzma.CHECK_CRC32)
    return {
        "name": seed_export_name(name),
        "description": f"cloud-init seed of guest {name}",
        "read-only": True,
        "layers": ["xz"],
        "source": {"type": "data", "base64": base64.b64encode(packed).decode()},
    }


def _source(template: Template) -> Mapping[str, Any]:
    first, *_ = template.image
    if not first.startswith(("http://", "https://")):
        return {"type": "file", "path": first}
    # of hashes nbdserve takes sha256: it names the content to caches, whichever mirror it came from
    named = {} if template.sha256 is None else {"sha256": template.sha256}
    return {"type": "http", "url": list(template.image), **named}


def _element(spec: ElementSpec) -> Mapping[str, Any]:
    made: dict[str, Any] = {"type": spec.name}
    for key, value in spec.given:
        if key not in made:
            made[key] = value
        else:  # given more than once: a list in a table
            before = made[key]
            made[key] = [*(before if isinstance(before, list) else [before]), value]
    return made
