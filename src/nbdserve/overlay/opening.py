"""Opening an overlay over a base: a temporary one, or a file that must be this base's.

Both give the file, the map of its clusters and their size.
"""

import functools
import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from nbdserve.datafile import DataFile
from nbdserve.device import Device, DeviceInfo
from nbdserve.errors import ConfigError
from nbdserve.formats.overlay import (
    CLUSTERS_PER_PAGE,
    MAX_CLUSTER,
    MAX_CLUSTERS,
    MIN_CLUSTER,
    Header,
)
from nbdserve.overlay.clusters import ClusterMap
from nbdserve.overlay.overlayfile import OverlayFile
from nbdserve.unbroken import run_unbroken

__all__ = ["describe_base", "open_overlay", "open_scratch", "refuse_cluster"]

log = logging.getLogger(__name__)

_DEFAULT_CLUSTER = 64 << 10  # qcow2's and nbdkit's: a fair deal between copying and map size
_SAMPLE = 64 << 10


def refuse_cluster(cluster: int) -> None:
    """Raise ConfigError unless this is a cluster size."""
    if cluster.bit_count() != 1 or not MIN_CLUSTER <= cluster <= MAX_CLUSTER:
        raise _cluster_error(f"{cluster} will not do; write a power of two from 4K to 64M")


async def open_scratch(
    folder: Path | None, info: DeviceInfo, cluster: int | None, *, read_only: bool
) -> tuple[DataFile | None, ClusterMap, int]:
    """Make a temporary overlay over a base that `info` describes; see `open_overlay`.

    Args:
        folder: where; None is $TMPDIR, else /var/tmp, which unlike /tmp is seldom in memory.
        info: the base's.
        cluster: bytes in a cluster; None takes the default.
        read_only: make nothing.
    """
    cluster = _cluster_over(info, cluster)
    clusters = ClusterMap(info.size, cluster, CLUSTERS_PER_PAGE)
    if read_only:
        return None, clusters, cluster
    make = functools.partial(DataFile.temporary, folder, user="cow", key="dir")
    return await run_unbroken(make, undo=DataFile.close), clusters, cluster


async def describe_base(inner: Device, cluster: int) -> Header:
    """Tell a base from others: its size, the first and last 64 KiB, and what it calls itself.

    A base that was changed in the middle only is not noticed unless it has an `identity`
    attribute that changed, such as a web server's ETag.
    """
    size = inner.info.size
    sample = min(_SAMPLE, size)
    digest = hashlib.sha256(await inner.read(0, sample))
    digest.update(await inner.read(size - sample, sample))
    return Header(cluster, size, digest.digest(), inner.identity or "")


async def open_overlay(
    path: Path, inner: Device, cluster: int | None, *, read_only: bool
) -> tuple[OverlayFile | None, ClusterMap, int]:
    """Open the overlay at `path`, or make it.

    Args:
        path: the file.
        inner: the base, open.
        cluster: bytes in a cluster; None takes an existing overlay's, or the default.
        read_only: make nothing, write nothing.

    Returns:
        The file (None if there is none and nothing is to be made), its map and its cluster size.

    Raises:
        ConfigError: the cluster size does not suit the base.
        DeviceError: it is another base's, damaged, in use, or cannot be made.
    """
    info = inner.info
    wanted = await describe_base(inner, _cluster_over(info, cluster))
    try:
        file = await run_unbroken(
            functools.partial(OverlayFile.open, path, read_only=read_only), undo=OverlayFile.close
        )
    except FileNotFoundError:
        clusters = ClusterMap(info.size, wanted.cluster, CLUSTERS_PER_PAGE)
        if read_only:
            return None, clusters, wanted.cluster
        made = await run_unbroken(OverlayFile.create, path, wanted, undo=OverlayFile.close)
        log.info("overlay made path=%s size=%d cluster=%d", path, info.size, wanted.cluster)
        return made, clusters, wanted.cluster
    try:
        if cluster is None:
            wanted = replace(wanted, cluster=file.header.cluster)
        file.refuse_other(wanted)
        clusters = ClusterMap(info.size, wanted.cluster, CLUSTERS_PER_PAGE)
        await run_unbroken(_load, file, clusters)
    except BaseException:
        file.close()
        raise
    log.info("overlay opened path=%s size=%d cluster=%d", path, info.size, wanted.cluster)
    return file, clusters, wanted.cluster


def _load(file: OverlayFile, clusters: ClusterMap) -> None:
    for page, states in file.pages():
        clusters.load(page, states)


def _cluster_over(info: DeviceInfo, cluster: int | None) -> int:
    """Choose a cluster size that suits the base, or check the one given."""
    least = max(-(-info.size // MAX_CLUSTERS), info.block_size.minimum)
    if cluster is None:
        cluster = _DEFAULT_CLUSTER
        while cluster < least:
            cluster *= 2
    elif cluster < least:
        raise _cluster_error(
            f"{cluster} is too small for this base of {info.size} bytes; write at least {least}"
        )
    return cluster


def _cluster_error(text: str) -> ConfigError:
    return ConfigError(text, table="layer cow", key="cluster")
