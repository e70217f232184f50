"""The overlay file of a persistent copy-on-write layer: bytes to values and back, no I/O.

All numbers are big-endian. From the start of the file:

- the header, one block of 4096 bytes, written once: magic, version, cluster size, size and
  identity of the base, CRC-32;
- two roots of `Layout.root_length` bytes each: generation, and for every page of the map its
  CRC-32 and which of its two slots holds it; CRC-32 at the end;
- the map: for each page two slots of one block, two bits a cluster;
- the data, sparse: cluster n at `data_start` + n * cluster size. No allocation table is needed,
  and neighbours in the device are neighbours in the file.

Why two of everything: a commit writes changed pages into the slots the root in force does not
name, and then the other root. Until that one is whole on disk the former root still describes a
map that nothing has touched, so a commit takes effect as one or not at all, however many pages it
changes, and a torn write is told from damage: a root may be torn, and then the other one counts;
a page that a whole root names was durable before that root was written, so if it fails its
checksum it was damaged, and the file is refused.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from nbdserve.errors import CorruptDataError
from nbdserve.ranges import align_up

__all__ = [
    "BLOCK",
    "CLUSTERS_PER_PAGE",
    "EMPTY_PAGE_CRC",
    "MAX_CLUSTER",
    "MAX_CLUSTERS",
    "MIN_CLUSTER",
    "Header",
    "Layout",
    "Root",
    "difference",
    "encode_header",
    "encode_page",
    "encode_root",
    "layout_of",
    "parse_header",
    "parse_page",
    "parse_root",
]

BLOCK: Final = 4096
"""Bytes of the header and of a page: what file systems write as one."""

CLUSTERS_PER_PAGE: Final = BLOCK * 4
MIN_CLUSTER: Final = 4 << 10
MAX_CLUSTER: Final = 64 << 20

MAX_CLUSTERS: Final = 1 << 28
"""A map of 256 MiB in memory were it all in use: 16 TiB in clusters of 64 KiB."""

_MAGIC: Final = b"nbdscow\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sIIQ32sH")  # magic, version, cluster, size, fingerprint, length
_ROOT: Final = struct.Struct(">4sIQ")  # magic, pages, generation
_ROOT_MAGIC: Final = b"root"
_CRC: Final = struct.Struct(">I")
_MAX_IDENTITY: Final = BLOCK - _HEADER.size - _CRC.size

EMPTY_PAGE_CRC: Final = crc32(bytes(BLOCK))
"""Checksum of a page in which every cluster is the base's; such a page is never read."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an overlay was made for.

    Attributes:
        cluster: bytes in a cluster, a power of two.
        size: bytes of the base, and so of the device.
        fingerprint: 32 bytes that tell this base from another of its size.
        identity: what the base calls itself (an ETag, say); "" if it has no name.
    """

    cluster: int
    size: int
    fingerprint: bytes
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of an overlay file lie, in bytes from its start.

    Attributes:
        pages: number of map pages.
        root_length: length of one root.
        map_start: start of the map.
        data_start: start of the data.
        end: length of the whole file.
    """

    pages: int
    root_length: int
    map_start: int
    data_start: int
    end: int

    def root_at(self, number: int) -> int:
        """Return where root 0 or 1 starts."""
        return BLOCK + number * self.root_length

    def page_at(self, page: int, slot: int) -> int:
        """Return where slot 0 or 1 of a page starts."""
        return self.map_start + (2 * page + slot) * BLOCK


@dataclass(frozen=True, slots=True)
class Root:
    """A state of the whole map.

    Attributes:
        generation: number of the commit that wrote it; the highest whole root counts.
        slots: for each page, the slot (0 or 1) that holds it.
        checksums: for each page, the CRC-32 of its block.
    """

    generation: int
    slots: Sequence[int]
    checksums: Sequence[int]


def layout_of(size: int, cluster: int) -> Layout:
    """Compute where everything lies in the overlay of a device of `size` bytes."""
    clusters = -(-size // cluster)
    pages = -(-clusters // CLUSTERS_PER_PAGE)
    root_length = align_up(_ROOT.size + -(-pages // 8) + 4 * pages + _CRC.size, BLOCK)
    map_start = BLOCK + 2 * root_length
    data_start = align_up(map_start + 2 * BLOCK * pages, max(cluster, BLOCK))
    return Layout(pages, root_length, map_start, data_start, data_start + size)


def encode_header(header: Header) -> bytes:
    """Make the header block; an identity that is too long is cut."""
    identity = header.identity.encode()[:_MAX_IDENTITY].decode(errors="ignore").encode()
    packed = _HEADER.pack(
        _MAGIC, _VERSION, header.cluster, header.size, header.fingerprint, len(identity)
    )
    return _seal(packed + identity, BLOCK)


def parse_header(block: bytes) -> Header:
    """Read the header block.

    Raises:
        CorruptDataError: it is no overlay's header, a later version's, or damaged.
    """
    if len(block) < BLOCK or not block.startswith(_MAGIC):
        raise CorruptDataError("is not an overlay of nbdserve")
    _, version, cluster, size, fingerprint, length = _HEADER.unpack_from(block)
    if not _is_sealed(block):
        raise CorruptDataError("its header is damaged")
    if version != _VERSION:
        raise CorruptDataError(f"has format version {version}, this nbdserve reads {_VERSION}")
    identity = block[_HEADER.size : _HEADER.size + length].decode(errors="replace")
    return Header(cluster, size, fingerprint, identity)


def difference(found: Header, wanted: Header) -> str | None:
    """Tell why an overlay found does not fit the base and cluster size wanted, naming both.

    An identity counts only when both have one: the same file may be served with and without.
    """
    if found.size != wanted.size:
        return f"was made over a base of {found.size} bytes, this one has {wanted.size}"
    if found.identity and wanted.identity and found.identity != wanted.identity:
        return f"was made over {found.identity!r}, this base is {wanted.identity!r}"
    if found.fingerprint != wanted.fingerprint:
        then, now = found.fingerprint.hex()[:12], wanted.fingerprint.hex()[:12]
        return f"was made over a base with other contents (fingerprint {then}, this one {now})"
    if found.cluster != wanted.cluster:
        return f"has clusters of {found.cluster} bytes, not {wanted.cluster}"
    return None


def encode_root(root: Root, layout: Layout) -> bytes:
    """Make a root of `layout.root_length` bytes."""
    return _seal(
        _ROOT.pack(_ROOT_MAGIC, layout.pages, root.generation)
        + _pack(bytes(root.slots), 1)
        + struct.pack(f">{layout.pages}I", *root.checksums),
        layout.root_length,
    )


def parse_root(block: bytes, layout: Layout) -> Root | None:
    """Read a root; None if it is not whole, as after a write that was cut short."""
    if len(block) != layout.root_length or not _is_sealed(block):
        return None
    magic, pages, generation = _ROOT.unpack_from(block)
    if magic != _ROOT_MAGIC or pages != layout.pages:
        return None
    bitmap = -(-pages // 8)
    slots = _unpack(block[_ROOT.size : _ROOT.size + bitmap], 1)[:pages]
    checksums = struct.unpack_from(f">{pages}I", block, _ROOT.size + bitmap)
    return Root(generation, slots, checksums)


def encode_page(states: bytes) -> bytes:
    """Pack up to `CLUSTERS_PER_PAGE` cluster states, a byte each, into a block of two bits each."""
    return _pack(states.ljust(CLUSTERS_PER_PAGE, b"\0"), 2)


def parse_page(block: bytes, checksum: int) -> bytes:
    """Unpack a block into `CLUSTERS_PER_PAGE` states of a byte each.

    Raises:
        CorruptDataError: it fails its checksum, or holds a state that does not exist.
    """
    if len(block) != BLOCK or crc32(block) != checksum:
        raise CorruptDataError("a page of its map is damaged")
    states = _unpack(block, 2)
    if 3 in states:
        raise CorruptDataError("a page of its map holds an unknown state")
    return states


def _pack(values: bytes, bits: int) -> bytes:
    """Put values of so many bits (1, 2 or 4), a byte each, next to each other."""
    # arithmetic on long integers does a page at a time; no value is so large as to cross a byte
    per_byte = 8 // bits
    length = -(-len(values) // per_byte)
    values = values.ljust(length * per_byte, b"\0")
    packed = 0
    for at in range(per_byte):
        packed |= int.from_bytes(values[at::per_byte], "little") << (bits * at)
    return packed.to_bytes(length, "little")


def _unpack(packed: bytes, bits: int) -> bytes:
    """Undo `_pack`; the last byte is unpacked whole."""
    per_byte = 8 // bits
    number = int.from_bytes(packed, "little")
    mask = int.from_bytes(bytes(((1 << bits) - 1,)) * len(packed), "little")
    values = bytearray(len(packed) * per_byte)
    for at in range(per_byte):
        values[at::per_byte] = (number >> (bits * at) & mask).to_bytes(len(packed), "little")
    return bytes(values)


def _seal(content: bytes, length: int) -> bytes:
    """Pad to `length` and put a checksum at the end."""
    body = content.ljust(length - _CRC.size, b"\0")
    return body + _CRC.pack(crc32(body))


def _is_sealed(block: bytes) -> bool:
    body = memoryview(block)[: -_CRC.size]
    return _CRC.pack(crc32(body)) == block[-_CRC.size :]
