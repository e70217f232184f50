"""The exports that were added while serving, kept in a folder so that a restart brings them back.

They are kept as they were written, in one JSON file that is replaced as a whole, so that a crash
leaves the old list or the new one. What cannot be understood any more (its layer was uninstalled)
is kept too, not served, and told.

Invariant: one daemon a folder, by a lock that ends with the process.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from nbdserve.config import read_export
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.packing.outputfile import OutputFile
from nbdserve.server.exports import Added

__all__ = ["AddedExports"]

log = logging.getLogger(__name__)

_FILE: Final = "exports.json"
_LOCK: Final = "lock"
_VERSION: Final = 1


class AddedExports:
    """The list in a folder; make it with `kept_in`.

    Attributes:
        folder: it is kept in, if any.
        exports: those that were there at the start.
        is_kept: whether there is a folder, so that what is saved survives.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._path = folder / _FILE if folder else None
        self._odd: list[Mapping[str, Any]] = []
        self.exports: list[Added] = []
        self.is_kept = folder is not None

    @classmethod
    @contextlib.contextmanager
    def kept_in(cls, folder: Path | None) -> Iterator["AddedExports"]:
        """Read the list, and lock it for the time of the block; without a folder, keep none.

        Raises:
            DeviceError: it cannot be read, is damaged, or another daemon has it.
        """
        kept = cls(folder)
        if folder is None:
            yield kept
            return
        with _locked(folder):
            kept._load(folder / _FILE)
            yield kept

    def save(self, added: Iterable[Added]) -> None:
        """Replace the list; blocks.

        Raises:
            DeviceError: it cannot be written; the old one is there still.
        """
        if self._path is None:
            return
        exports = list(added)
        content = {
            "v": _VERSION,
            "exports": [*(one.table for one in exports), *self._odd],
            "since": {one.spec.name: one.since for one in exports},
        }
        with OutputFile(self._path, force=True, mode=0o600) as output:
            output.write([json.dumps(content, indent=2).encode() + b"\n"])
            output.commit()

    def _load(self, path: Path) -> None:
        try:
            content = json.loads(path.read_bytes())
            tables = content["exports"]
            since = content.get("since", {})  # older versions did not keep it
            known = content["v"] == _VERSION and all(
                isinstance(one, dict) for one in [since, *tables]
            )
            ages = {name: float(at) for name, at in since.items() if at is not None}
        except FileNotFoundError:
            return
        except OSError as exc:
            raise DeviceError(f"{path}: {exc.strerror}; check its permissions", exc.errno) from exc
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise DeviceError(f"{path}: is damaged ({exc}); mend it or move it away") from exc
        if not known:
            raise DeviceError(f"{path}: is of another version; move it away")
        for table in tables:
            try:
                spec = read_export(table, file=path)
                self.exports.append(Added(spec, table, ages.get(spec.name)))
            except ConfigError as exc:
                log.warning("added export cannot be served any more: %s", exc)
                self._odd.append(table)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock: TextIO | None = None
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if lock is not None:
            lock.close()
        if isinstance(exc, BlockingIOError):
            text = "another nbdserve keeps its exports there; choose another --state-dir"
        else:
            text = f"{os.strerror(exc.errno or 0)}; check the folder given by --state-dir"
        raise DeviceError(f"{folder}: {text}", exc.errno) from exc
    with lock:
        yield
