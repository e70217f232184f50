"""One image opened by nbdserve's own sources and looked at; the whole of it hashed if asked for.

nbdserve reads it here as the export server will: the same requests, the same errors; a file of
another machine is read there. Nothing is kept: the layers of the template are not opened, since a
cache would be made on this machine.
"""

import hashlib
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from minicloud.errors import StorageError, UsageError
from minicloud.images.facts import ImageFacts
from minicloud.images.farfile import FarFile, Shell, far_sum
from minicloud.inventory.kinds import is_url
from minicloud.model.inventory import Template
from nbdserve.build import open_chain, resolve
from nbdserve.device import Device
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.inspection import gather_xz, pack_command
from nbdserve.packing.reading import is_xz
from nbdserve.spec import ElementSpec, ExportSpec, parse_layer
from nbdserve.threads import run_cpu
from nbdserve.xzengine.indexing import index_of

__all__ = ["Progress", "check_layers", "inspect_far_image", "inspect_image"]

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are done."""

_HEAD: Final = 512
_PIECE: Final = 1 << 20  # hashed at a time: some milliseconds, so that a thread is worth its way
_PATIENCE: Final = (("timeout", "10s"), ("retry-for", "10s"))  # a person waits; a guest has longer
_ANY: Final = ElementSpec("null", (("size", "0"),))


def check_layers(template: Template) -> None:
    """Look the layers of a template up, parameters and all.

    Raises:
        UsageError: one of them is wrong as written.
    """
    for layer in template.layers:
        try:
            resolve(ExportSpec(_ANY, (parse_layer(layer),)))
        except ConfigError as exc:
            raise UsageError(str(exc), table=f"templates.{template.name}", key="layers") from None


async def inspect_image(
    image: str, *, sums: Collection[str] = (), progress: Progress | None = None
) -> ImageFacts:
    """Look at an image.

    Args:
        image: a URL, or a path on this machine.
        sums: names of hashlib's algorithms; the whole file is read if there are any.
        progress: is told of that.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    try:
        chain = await open_chain(_spec(image))
    except (ConfigError, DeviceError) as exc:
        raise StorageError("unreachable", str(exc)) from exc
    try:
        device = chain.outermost
        facts = await _look(device, image)
        taken = await _hashed(device, sums, progress or _ignore) if sums else {}
        return replace(facts, sums=taken)
    except DeviceError as exc:
        raise StorageError("damaged", str(exc)) from exc
    finally:
        await chain.close()


async def inspect_far_image(shell: Shell, path: str, *, sums: Collection[str] = ()) -> ImageFacts:
    """Look at an image that lies on another machine; its checksums are taken there.

    Args:
        shell: of the machine.
        path: of the image, from the root.
        sums: as for `inspect_image`.

    Raises:
        NodeError: the machine does not answer.
        StorageError: the image is not there, or cannot be read.
    """
    device = FarFile(shell, path)
    await device.open(read_only=True)
    try:
        facts = await _look(device, path)
    except DeviceError as exc:
        raise StorageError("damaged", str(exc)) from exc
    return replace(facts, sums={name: await far_sum(shell, path, name) for name in sums})


def _spec(image: str) -> ExportSpec:
    if is_url(image):
        source = ElementSpec("http", (("url", image), *_PATIENCE))
    else:
        source = ElementSpec("file", (("path", image),))
    return ExportSpec(source, read_only=True)


async def _look(device: Device, image: str) -> ImageFacts:
    size = device.info.size
    head = await device.read(0, min(_HEAD, size))
    facts = ImageFacts(size, head)
    if not await is_xz(device):
        return facts
    index = await index_of(device)
    remedy = pack_command([image], [], image=image)
    return replace(facts, xz=gather_xz(index), remedy=remedy)


async def _hashed(device: Device, names: Collection[str], progress: Progress) -> dict[str, str]:
    hashes = {name: hashlib.new(name) for name in names}
    size, done = device.info.size, 0
    piece = bytearray()

    def update(data: bytes) -> None:
        for found in hashes.values():
            found.update(data)

    async with aclosing(device.stream(0, size)) as chunks:
        async for chunk in chunks:
            piece += chunk
            done += len(chunk)
            if len(piece) >= _PIECE or done == size:
                await run_cpu(update, bytes(piece))
                piece.clear()
                progress(done, size)
    return {name: found.hexdigest() for name, found in hashes.items()}


def _ignore(done: int, total: int) -> None:
    pass
