"""What a file is that is not what it was taken for, told from its first bytes.

A wrong layer or URL is the commonest mistake there is, so its message names the remedy.
"""

__all__ = ["container", "guess"]

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xfd7zXZ\0", "it begins as xz: it is truncated, or goes on behind its end; fetch it again"),
    (b"\x1f\x8b", "it is gzip: recompress it, zcat FILE | xz -T0 --block-size=16MiB"),
    (b"\x28\xb5\x2f\xfd", "it is zstd: recompress it, zstdcat FILE | xz -T0 --block-size=16MiB"),
    (b"BZh", "it is bzip2: recompress it, bzcat FILE | xz -T0 --block-size=16MiB"),
    (b"LZIP", "it is lzip: recompress it, lzip -dc FILE | xz -T0 --block-size=16MiB"),
    (b"\x5d\0\0", "it looks like lzma: recompress it, xz -dc FILE | xz -T0 --block-size=16MiB"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it and compress the image with xz"),
    (b"PK\x03\x04", "it is a zip archive: unpack it and compress the image with xz"),
    (b"QFI\xfb", "it is a qcow2 image: make it raw, qemu-img convert -O raw, and compress that"),
    (b"KDMV", "it is a VMDK image: make it raw, qemu-img convert -O raw, and compress that"),
)  # fmt: skip
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_BOOT_SIGNATURE = b"\x55\xaa"  # at byte 510 of a disk with a partition table


def container(head: bytes) -> str | None:
    """Say what a file is that holds an image but is none, and the remedy; None if it may be one."""
    return next((answer for magic, answer in _MAGIC if head.startswith(magic)), None)


def guess(head: bytes) -> str:
    """Say what a file is that begins with `head` (512 bytes if it has them), and the remedy."""
    if not head:
        return "the file is empty: check that it was written and fetched"
    if (answer := container(head)) is not None:
        return answer
    if head.lstrip()[:14].lower().startswith(_PAGES):
        return "it is a web page: check the URL"
    if head[510:512] == _BOOT_SIGNATURE:
        return "it looks like a raw disk image: leave --layer xz out"
    if not head.strip(b"\0"):
        return "it begins with zeroes: leave --layer xz out if it is a raw image"
    return "is it the right file? leave --layer xz out if it is a raw image"
