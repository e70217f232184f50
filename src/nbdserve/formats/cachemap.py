"""The map of a persistent cache: which chunks of an image a cache file holds; bytes to values.

All numbers are big-endian. The file begins with one block of 4096 bytes, written once: magic,
version, chunk size, salt, size of the image, SHA-256 of its identity, the identity as text (cut
where it is too long; it is there for a person to read), CRC-32. Every version keeps magic, version
and checksum of that block where they are.

Then come records of 16 bytes, only ever appended: chunk, value, kind, checksum. Later ones count.
Nothing is synchronised as they are written, so any of them may be lost or torn by a crash, and
any of them may be there while the bytes it speaks of are not. Hence each is checked alone (a bad
one is skipped and costs one chunk), and none is believed: the value is the CRC-32 of the chunk's
bytes, which they must have when they are first read. The salt, of which each file has its own,
tells a record from one that lay in the same place of the disk before.
"""

import enum
import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from zlib import crc32

from nbdserve.errors import CorruptDataError, NotSupportedError

__all__ = [
    "BLOCK",
    "RECORD",
    "CacheHeader",
    "Kind",
    "Record",
    "encode_cache_header",
    "encode_records",
    "identity_digest",
    "parse_cache_header",
    "parse_records",
]

BLOCK: Final = 4096
"""Bytes of the header."""

RECORD: Final = 16
"""Bytes of a record."""

_MAGIC: Final = b"nbdsmap\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sIIIQ32s")  # magic, version, chunk, salt, size, digest
_CRC: Final = struct.Struct(">I")
_TEXT: Final = BLOCK - _HEADER.size - _CRC.size
_SEALED: Final = struct.Struct(">12sI")
_BODY: Final = struct.Struct(">III")


class Kind(enum.IntEnum):
    """What a record says.

    Attributes:
        GONE: the chunk was dropped.
        DATA: the chunk lies in the cache file; the value is the CRC-32 of its bytes.
        ZERO: the chunk is all zero, and a hole in the cache file; the value is that of DATA.
        USED: of a group of chunks, when it was last used: seconds since 1970.
    """

    GONE = 0
    DATA = 1
    ZERO = 3
    USED = 4


_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class CacheHeader:
    """What a cache file was made for.

    Attributes:
        chunk: bytes in a chunk.
        size: bytes of the image.
        digest: of its identity, see `identity_digest`.
        salt: a random number of this file.
        identity: the identity for people to read, perhaps cut.
    """

    chunk: int
    size: int
    digest: bytes
    salt: int
    identity: str = ""


class Record(NamedTuple):
    """One record, see `Kind`; of USED, `number` is that of a group."""

    kind: Kind
    number: int
    value: int


def identity_digest(identity: str) -> bytes:
    """Return the 32 bytes that stand for an identity of any length."""
    return hashlib.sha256(identity.encode(errors="surrogateescape")).digest()


def encode_cache_header(header: CacheHeader) -> bytes:
    """Make the first block of a map."""
    text = header.identity.encode(errors="replace")[:_TEXT]
    packed = _HEADER.pack(
        _MAGIC, _VERSION, header.chunk, header.salt, header.size, header.digest
    )  # fmt: skip
    body = (packed + text).ljust(BLOCK - _CRC.size, b"\0")
    return body + _CRC.pack(crc32(body))


def parse_cache_header(block: bytes) -> CacheHeader:
    """Read the first block of a map.

    Raises:
        CorruptDataError: it is damaged, or something else.
        NotSupportedError: another version of the format wrote it.
    """
    if len(block) != BLOCK or not block.startswith(_MAGIC):
        raise CorruptDataError("is no map of a cache")
    if _CRC.pack(crc32(block[: -_CRC.size])) != block[-_CRC.size :]:
        raise CorruptDataError("has a damaged header")
    _, version, chunk, salt, size, digest = _HEADER.unpack_from(block)
    if version != _VERSION:
        raise NotSupportedError(f"has format version {version}, this nbdserve reads {_VERSION}")
    text = block[_HEADER.size : -_CRC.size].rstrip(b"\0").decode(errors="replace")
    return CacheHeader(chunk, size, digest, salt, text)


def encode_records(records: Iterable[Record], salt: int) -> bytes:
    """Make the bytes of records."""
    packed = bytearray()
    for kind, number, value in records:
        body = _BODY.pack(number, value, kind)
        packed += body + _CRC.pack(crc32(body, salt))
    return bytes(packed)


def parse_records(data: bytes, salt: int) -> Iterator[Record]:
    """Read whole records; those that are damaged or of an unknown kind are left out."""
    whole = len(data) - len(data) % RECORD
    for body, check in _SEALED.iter_unpack(memoryview(data)[:whole]):
        if crc32(body, salt) == check:
            number, value, kind = _BODY.unpack(body)
            known = _KINDS.get(kind)
            if known is not None:
                yield Record(known, number, value)
