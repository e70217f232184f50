"""Metalink files (.meta4): where a file can be had, how long it is, and what it hashes to.

Source: RFC 5854. The text comes from elsewhere, so the parser takes no document type: entities
that expand to gigabytes or name local files are refused before anything is expanded.
"""

import re
from dataclasses import dataclass
from xml.parsers import expat

__all__ = ["MAX_SIZE", "Metalink", "MetalinkError", "MetalinkFile", "parse_metalink"]

MAX_SIZE = 1 << 20
"""Bytes of a metalink that are read at most; one with a thousand mirrors has 200 KiB."""

_NAMESPACE = "urn:ietf:params:xml:ns:metalink"
_LAST_PRIORITY = 999_999  # section 4.2.16.1: the highest number there is
_NUMBER = re.compile(r"[0-9]{1,19}")  # more digits are no size of a file
_HEX = frozenset("0123456789abcdef")


class MetalinkError(ValueError):
    """The text is no metalink that can be used; says why."""


@dataclass(frozen=True, slots=True)
class MetalinkFile:
    """One file of a metalink.

    Attributes:
        name: its name.
        size: its length in bytes; None if that is not told.
        sha256: its hash in lower-case hexadecimal; None if that is not told.
        urls: where it can be had by http or https, best first.
    """

    name: str
    size: int | None
    sha256: str | None
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metalink:
    """The files of a metalink, in its order."""

    files: tuple[MetalinkFile, ...]

    def file(self, name: str | None) -> MetalinkFile:
        """Return the file called `name`, or the only one.

        Raises:
            MetalinkError: it is not there, or there are several.
        """
        names = ", ".join(file.name for file in self.files)
        if name is None:
            if len(self.files) > 1:
                raise MetalinkError(f"it names several files: {names}")
            return self.files[0]
        for file in self.files:
            if file.name == name:
                return file
        raise MetalinkError(f"it names no file {name!r}, but: {names}")


def parse_metalink(data: bytes) -> Metalink:
    """Parse a metalink.

    Raises:
        MetalinkError: it is none, has a document type, or names no file.
    """
    if len(data) > MAX_SIZE:
        raise MetalinkError(f"it is longer than {MAX_SIZE} bytes")
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise MetalinkError(f"it is no XML: {exc}") from exc
    if not reader.files:
        raise MetalinkError("it names no file")
    return Metalink(tuple(reader.files))


class _Reader:
    """Collects files while expat walks through the text."""

    def __init__(self) -> None:
        self.files: list[MetalinkFile] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = _refuse_doctype
        self._path: list[str] = []
        self._attributes: dict[str, str] = {}
        self._words: list[str] = []
        self._name = ""
        self._begin_file("")

    def _begin_file(self, name: str) -> None:
        self._name = name
        self._size: int | None = None
        self._sha256: str | None = None
        self._urls: list[tuple[int, str]] = []

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._path and tag != f"{_NAMESPACE} metalink":
            raise MetalinkError(f"it begins with <{tag.rpartition(' ')[2]}>, not as RFC 5854 says")
        self._path.append(tag.removeprefix(f"{_NAMESPACE} "))
        self._attributes, self._words = attributes, []
        if self._path == ["metalink", "file"]:
            self._begin_file(attributes.get("name", ""))

    def _text(self, words: str) -> None:
        self._words.append(words)

    def _end(self, _: str) -> None:
        if self._path[:2] == ["metalink", "file"]:
            text = "".join(self._words).strip()
            self._take(self._path[2:], text)
        self._path.pop()
        self._words = []

    def _take(self, place: list[str], text: str) -> None:
        if place == ["size"]:
            if not _NUMBER.fullmatch(text):
                raise MetalinkError(f"the size of {self._name!r} is {text[:40]!r}")
            self._size = int(text)
        elif place == ["hash"] and self._attributes.get("type", "").lower() == "sha-256":
            if len(text) != 64 or not _HEX.issuperset(text.lower()):
                raise MetalinkError(f"the sha-256 of {self._name!r} is {text!r}")
            self._sha256 = text.lower()
        elif place == ["url"] and text.lower().startswith(("http://", "https://")):
            self._urls.append((_priority(self._attributes), text))
        elif place == []:
            urls = [url for _, url in sorted(self._urls, key=lambda pair: pair[0])]
            self.files.append(MetalinkFile(self._name, self._size, self._sha256, tuple(urls)))


def _priority(attributes: dict[str, str]) -> int:
    text = attributes.get("priority", "")
    return int(text) if _NUMBER.fullmatch(text) else _LAST_PRIORITY


def _refuse_doctype(*_: object) -> None:
    raise MetalinkError("it has a document type, which no metalink needs")
