"""Tables of written values, read key by key; every error is kept, so that all are told at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicloud.errors import UsageError
from minicloud.inventory.customize import CUSTOMIZE
from minicloud.inventory.keys import Key
from nbdserve.params import Kind, closest

__all__ = ["TableReader"]


class TableReader:
    """Reads the tables of one file; `errors` fills up meanwhile.

    Args:
        file: what the errors name.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.errors: list[UsageError] = []

    def wrong(self, table: str | None, key: str | None, message: str) -> None:
        """Note an error."""
        self.errors.append(UsageError(message, file=self._file, table=table, key=key))

    def table(self, written: Any, name: str) -> Mapping[str, Any]:
        """Take what stands where a table should; empty if it is none."""
        if isinstance(written, dict):
            return written
        self.wrong(name, None, f"is a table: write [{name}]")
        return {}

    def values(self, written: Any, keys: Mapping[str, Key], name: str) -> dict[str, Any]:
        """Read a table.

        Returns:
            The values of its good keys, by the names of fields.
        """
        found: dict[str, Any] = {}
        for given, value in self.table(written, name).items():
            key = given.replace("_", "-")
            known = keys.get(key)
            field = key.replace("-", "_")
            if known is None:
                self.wrong(name, None, f"unknown key {given!r}; {closest(key, keys)}")
            elif field in found:
                self.wrong(name, key, "given twice")
            elif (parsed := self._value(known, value, name, key)) is not None:
                found[field] = parsed
        return found

    def _value(self, known: Key, value: Any, name: str, key: str) -> Any:
        if not known.many:
            return self.parsed(known.kind, value, name, key)
        given = value if isinstance(value, list) else [value]
        parsed = [self.parsed(known.kind, one, name, key) for one in given]
        return tuple(one for one in parsed if one is not None)

    def parsed(self, kind: Kind[Any], value: Any, name: str | None, key: str | None) -> Any:
        """Read one value; None if it will not do."""
        try:
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"a {kind.name}")  # noqa: TRY301, TRY004 -- told like any other
            return kind.parse(value)
        except ValueError as exc:
            # of an option the word alone: what follows may be a password
            shown = str(value).partition(" ")[0] if kind is CUSTOMIZE else value
            self.wrong(name, key, f"{shown!r} will not do: {exc}")
            return None
