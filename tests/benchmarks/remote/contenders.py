"""What is compared: NBD servers over an image on a web server, and pipelines that copy it whole.

nbdkit appears as it is typed first, and at its best tuning: a cache of 4 MiB blocks beneath xz
makes its many small requests few, and `xz-max-depth=256` keeps every block that a boot jumps among.
"""

import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from remote.layout import Layout

__all__ = ["CONTENDERS", "Contender", "Job", "can_persist"]

_DEPTH = 8  # nbdkit-xz-filter(1): decoded blocks kept a connection
_DEEP = 256  # more than any image here has
_LARGEST = 512 << 20  # the block that nbdkit's filter and our layer take without being told


@dataclass(frozen=True, slots=True)
class Job:
    """What a contender is to do.

    Attributes:
        url: the image on the web server.
        sock: the Unix socket to serve it on.
        layout: the blocks of the xz file; None for an image that is not compressed.
        writable: whether a guest is to write to it.
        cache: a folder of the contender's own that outlives it, or None.
        jumps: whether one connection reads here and there, and not all from start to end.
    """

    url: str
    sock: Path
    layout: Layout | None
    writable: bool
    cache: Path
    jumps: bool


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared.

    Attributes:
        name: in the table.
        argv: its command line for a job.
        serves: whether it is an NBD server; else it copies to nowhere and ends.
        raw: whether it takes images that are not compressed, True, or xz files, False, or both.
        usual: whether it takes part without being named.
        depth: decoded blocks that each connection may hold, where each has a cache of its own.
        deep: the same where a connection jumps.
        persistent: whether it keeps what it fetched over a restart.
        until: what its log says when it has all that it will want after a restart; waited for when
            the work before that is done.
    """

    name: str
    argv: Callable[[Job], list[str]]
    serves: bool = True
    raw: bool | None = None
    usual: bool = True
    depth: int = 0
    deep: int = 0
    persistent: bool = False
    until: str = ""


def _nbdkit(job: Job, *filters: str, tuning: tuple[str, ...] = (), depth: int = 0) -> list[str]:
    above = ["--filter=cow"] if job.writable else []
    known = list(tuning)
    if job.layout is not None:
        above.append("--filter=xz")
        if job.layout.largest > _LARGEST:
            known.append(f"xz-max-block={job.layout.largest}")
        if depth:
            known.append(f"xz-max-depth={depth}")
    below = [f"--filter={name}" for name in filters]
    return ["nbdkit", "-f", "-U", str(job.sock), *above, *below, "curl", job.url, *known]


def _tuned(job: Job) -> list[str]:
    cache = ("cache-min-block-size=4M", "cache-on-read=true")
    return _nbdkit(job, "cache", tuning=cache, depth=_DEEP if job.jumps else 0)


def _importer(job: Job) -> list[str]:
    """What kubevirt's importer runs."""
    return _nbdkit(job, "cacheextents", "cache", "retry", tuning=("cache-on-read=true",))


def _nbdserve(job: Job, *middle: str) -> list[str]:
    layers = [*middle]
    if job.layout is not None:
        large = job.layout.largest > _LARGEST and "max-block=" in _page("xz")
        layers.append(f"xz:max-block={job.layout.largest}" if large else "xz")
    if job.writable:
        layers.insert(0, "cow")
    words = [word for layer in layers for word in ("--layer", layer)]
    return [sys.executable, "-m", "nbdserve", "-U", str(job.sock), *words, "http", job.url]


def _nbdserve_cached(job: Job, *more: str) -> list[str]:
    return _nbdserve(job, ",".join((f"cache:path={job.cache},size=8G", *more)))


def _nbdserve_filled(job: Job) -> list[str]:
    return _nbdserve_cached(job, "fill=background")


def _pipe(job: Job) -> list[str]:
    unpack = "" if job.layout is None else "| xz -dc"
    return ["sh", "-c", f"curl -sSf '{job.url}' {unpack} >/dev/null"]


def _qemu_url(job: Job) -> list[str]:
    # one request at a time: with more, qemu-img 7.2 waits for ever for answers that are there
    return ["qemu-img", "convert", "-n", "-m", "1", "-f", "raw", job.url, "--target-image-opts",
            "driver=null-co,size=1P"]  # fmt: skip


@functools.cache
def _page(element: str) -> str:
    """Return what nbdserve tells of a layer, to find out what it can."""
    argv = [sys.executable, "-m", "nbdserve", "--help", element]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def can_persist() -> bool:
    """Whether nbdserve's cache outlives a restart."""
    return "path=" in _page("cache")


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("nbdkit", _nbdkit, depth=_DEPTH, deep=_DEPTH),
        Contender("nbdkit-tuned", _tuned, depth=_DEPTH, deep=_DEEP),
        Contender("nbdkit-importer", _importer, usual=False, depth=_DEPTH, deep=_DEPTH),
        Contender("curl|xz", _pipe, serves=False),
        Contender("qemu-url", _qemu_url, serves=False, raw=True),
        Contender("nbdserve", _nbdserve),
        Contender("nbdserve-cache", _nbdserve_cached, persistent=True),
        Contender(
            "nbdserve-filled",
            _nbdserve_filled,
            persistent=True,
            until="the origin is no longer needed",
        ),
    )
}
