"""Opening the files of an image in a folder, which is locked meanwhile.

Blocks. What is damaged is begun anew, for all of it can be had again; what another version of
the program made is refused, for that one may still want it.
"""

import contextlib
import errno
import logging
import os
from pathlib import Path

from nbdserve.cachestore.chunkfile import ChunkFile
from nbdserve.cachestore.claims import Claims
from nbdserve.cachestore.folder import Folder
from nbdserve.cachestore.imagefiles import ImageFiles
from nbdserve.errors import CorruptDataError, NotSupportedError
from nbdserve.formats.cachemap import CacheHeader, identity_digest

__all__ = ["open_idle_images", "open_image_files", "open_nowhere"]

log = logging.getLogger(__name__)


def open_image_files(folder: Folder, identity: str, size: int, chunk: int) -> ImageFiles:
    """Open the files of an image, or make them; shared, and to be added to if nobody else does.

    Args:
        folder: where; it is locked.
        identity: of the image.
        size: its bytes.
        chunk: bytes in a chunk, for new files.

    Raises:
        NotSupportedError: another version of the format made them.
        OSError: they cannot be had.
    """
    name = folder.name_of(identity)
    with contextlib.ExitStack() as opened:
        data = ChunkFile(folder.data(name), size)
        opened.callback(data.close)
        claims = _open_claims(folder.map(name), identity, size)
        if claims is None:
            if data.alone:
                data.clear()
            claims = Claims.create(folder.map(name), identity, size, chunk)
        opened.callback(claims.close)
        files = ImageFiles(name, data, claims)
        files.catch_up()
        if data.alone and claims.locked:
            files.reclaim()
        if not data.punches:
            log.warning(
                "no holes can be punched on the file system of the cache, so nothing can be "
                "evicted; put it on ext4, xfs, btrfs or tmpfs path=%s", folder.path,
            )  # fmt: skip
        data.share()
        opened.pop_all()
        return files


def open_nowhere(name: str, identity: str, size: int, chunk: int) -> ImageFiles:
    """Make files that hold nothing and are never added to, for want of room for any."""
    with open(os.memfd_create("nbdserve-cache"), "rb", buffering=0) as empty:
        data = ChunkFile(Path(f"/proc/self/fd/{empty.fileno()}"), 0)
    header = CacheHeader(chunk, size, identity_digest(identity), 0)
    return ImageFiles(
        name, data, Claims(Path("/nowhere"), os.memfd_create("nbdserve-cache"), header)
    )


def open_idle_images(folder: Folder, besides: frozenset[str]) -> list[ImageFiles]:
    """Open the images of a folder, which is locked, that nobody has open; each is ours alone.

    Args:
        folder: where.
        besides: names to leave out.
    """
    found = []
    for name in folder.names():
        if name in besides:
            continue
        try:
            files = _open_if_idle(folder, name)
        except (CorruptDataError, FileNotFoundError):
            folder.remove(name)  # nobody could read it any more
        except OSError as exc:
            log.debug("cached image is left alone name=%s: %s", name, exc)
        else:
            if files is not None:
                found.append(files)
    return found


def _open_if_idle(folder: Folder, name: str) -> ImageFiles | None:
    path = folder.data(name)
    with contextlib.ExitStack() as opened:
        data = ChunkFile(path, path.stat().st_size)
        opened.callback(data.close)
        if not data.alone:
            return None
        claims = Claims.open(folder.map(name))
        opened.callback(claims.close)
        files = ImageFiles(name, data, claims)
        files.catch_up()
        opened.pop_all()
        return files


def _open_claims(path: Path, identity: str, size: int) -> Claims | None:
    """Open the map of an image, if there is one that is of use."""
    try:
        claims = Claims.open(path)
    except FileNotFoundError:
        return None
    except CorruptDataError as exc:
        log.warning("cached data is dropped path=%s: its map %s", path, exc)
        return None
    except NotSupportedError as exc:
        raise NotSupportedError(
            f"cache: {path}: {exc}; remove it, or name another path=", errno.EINVAL
        ) from exc
    header = claims.header
    if (header.digest, header.size) != (identity_digest(identity), size):
        claims.close()
        log.warning("cached data is dropped path=%s: its map is of another image", path)
        return None
    return claims
