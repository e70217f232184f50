"""What was found beneath a cache the last time, for the day when nothing can be found there.

A small file for each way of writing a chain, named after a hash of that text (which may hold a
secret, and so is not kept): the identity and the sizes of the image it led to. Replaced as a
whole; blocks.
"""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from nbdserve.device import BlockSize
from nbdserve.formats.cachemap import identity_digest

__all__ = ["Origin", "recall_origin", "remember_origin"]

log = logging.getLogger(__name__)

_VERSION: Final = 1
_NAME: Final = 32  # hex digits: 128 bits


@dataclass(frozen=True, slots=True)
class Origin:
    """An image as it was when it could last be reached.

    Attributes:
        identity: its identity.
        size: its size in bytes.
        block_size: the block sizes of the device that gave it.
    """

    identity: str
    size: int
    block_size: BlockSize


def remember_origin(folder: Path, beneath: str, origin: Origin) -> None:
    """Note what a chain led to.

    Args:
        folder: of the cache.
        beneath: how the chain was written.
        origin: what it led to.

    Raises:
        OSError: it cannot be written.
    """
    path, data = _path(folder, beneath), _encode(origin)
    if path.exists() and path.read_bytes() == data:
        return
    # written at once by two, at worst neither is believed
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    draft.rename(path)


def recall_origin(folder: Path, beneath: str) -> Origin | None:
    """Return what a chain led to the last time; None if that is not known for certain."""
    path = _path(folder, beneath)
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        log.warning("what is noted of the origin is of no use path=%s: %s", path, exc)
        return None


def _path(folder: Path, beneath: str) -> Path:
    return folder / f"{identity_digest(beneath).hex()[:_NAME]}.origin"


def _encode(origin: Origin) -> bytes:
    facts = {
        "version": _VERSION,
        "identity": origin.identity,
        "size": origin.size,
        "block_size": list(origin.block_size),
    }
    text = json.dumps(facts)
    return f"{crc32(text.encode()):08x} {text}\n".encode()


def _parse(data: bytes) -> Origin:
    check, _, text = data.rstrip(b"\n").partition(b" ")
    if int(check, 16) != crc32(text):
        raise ValueError("it is damaged")
    facts = json.loads(text)
    if facts["version"] != _VERSION:
        raise ValueError(f"it has format version {facts['version']}, this one reads {_VERSION}")
    return Origin(facts["identity"], facts["size"], BlockSize(*facts["block_size"]))
