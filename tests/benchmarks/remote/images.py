"""The images of a run: one disk, and its xz variants; built once and kept in a folder."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from remote import cloudimage
from remote.layout import Layout, read_layout

__all__ = ["NAMES", "Image", "prepare"]

RAW = "raw"
_BLOCKS = {"16M": ("--block-size=16MiB", "-T0"), "192M": ("--block-size=192MiB", "-T0"),
           "one": ("-T1",)}  # fmt: skip
NAMES = [*_BLOCKS, RAW]


@dataclass(frozen=True, slots=True)
class Image:
    """One file on the web server.

    Attributes:
        name: in the table.
        path: of the file.
        raw: the disk that is in it.
        layout: its blocks; None if it is not compressed.
    """

    name: str
    path: Path
    raw: Path
    layout: Layout | None

    @property
    def file_size(self) -> int:
        """Bytes on the web server."""
        return self.path.stat().st_size


def prepare(folder: Path, names: Iterable[str], size: int) -> dict[str, Image]:
    """Return images of a disk of `size` bytes, and make those that are not in `folder` yet."""
    place = folder / f"{size >> 20}M"
    place.mkdir(parents=True, exist_ok=True)
    raw = place / "disk.raw"
    if not raw.exists():
        with _told(f"a bootable Debian of {size >> 20} MiB (some minutes)"):
            cloudimage.build(raw, size)
    return {name: _image(name, raw) for name in names}


def _image(name: str, raw: Path) -> Image:
    if name == RAW:
        return Image(name, raw, raw, None)
    path = raw.with_name(f"disk-{name}.raw.xz")
    if not path.exists():
        with _told(f"{path.name} (xz -6, minutes for each GiB)"):
            _compress(raw, path, *_BLOCKS[name])
    return Image(name, path, raw, read_layout(path))


def _compress(raw: Path, path: Path, *how: str) -> None:
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as out:
            subprocess.run(["xz", "-6", *how, "--stdout", raw], stdout=out, check=True)
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    print(f"making {what} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    yield
    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
