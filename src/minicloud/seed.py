"""A cloud-init seed: the bytes of a NoCloud disk, made in memory.

An ISO 9660 image with the label CIDATA, which cloud-init looks for on every disk and CD-ROM at its
first start (docs.cloud-init.io, "NoCloud"). It is served as an export like any other, so nothing is
copied to a node, and it is gone when the export is removed.
"""

import io
import json
from dataclasses import dataclass
from typing import Final

import pycdlib

from minicloud.errors import UsageError

__all__ = ["LARGEST", "Seed", "seed_image"]

LARGEST: Final = 512 << 10
"""Bytes of an image: its export's table holds it, and goes over the control socket as one line."""

_LABEL: Final = "CIDATA"
_ROCK_RIDGE: Final = "1.09"  # how Linux learns of lower-case names
_JOLIET: Final = 3  # how Windows does
_MODE: Final = 0o100444


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What a guest is told at its first start.

    Attributes:
        instance_id: another one than last time makes cloud-init begin anew.
        hostname: the guest's.
        user_data: in any of cloud-init's formats.
        network_config: of version 1 or 2, or None to leave it to the image.
    """

    instance_id: str
    hostname: str
    user_data: bytes
    network_config: bytes | None = None


def seed_image(seed: Seed) -> bytes:
    """Make the image.

    Raises:
        UsageError: it is too large.
    """
    meta = {"instance-id": seed.instance_id, "local-hostname": seed.hostname}
    files = {
        "meta-data": json.dumps(meta).encode() + b"\n",
        "user-data": seed.user_data,
    }
    if seed.network_config is not None:
        files["network-config"] = seed.network_config
    _refuse_more_than(sum(map(len, files.values())))
    image = _iso(files)
    _refuse_more_than(len(image))
    return image


def _refuse_more_than(size: int) -> None:
    if size > LARGEST:
        raise UsageError(
            f"a cloud-init seed of {size} bytes is too large, at most {LARGEST} fit; let the guest "
            "fetch the rest, by #include and a URL"
        )


def _iso(files: dict[str, bytes]) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(
        interchange_level=3, vol_ident=_LABEL, joliet=_JOLIET, rock_ridge=_ROCK_RIDGE
    )  # fmt: skip
    try:
        for number, (name, contents) in enumerate(files.items()):
            iso.add_fp(
                io.BytesIO(contents),
                len(contents),
                f"/FILE{number}.;1",
                rr_name=name,
                joliet_path=f"/{name}",
                file_mode=_MODE,
            )
        out = io.BytesIO()
        iso.write_fp(out)
    finally:
        iso.close()
    return out.getvalue()
