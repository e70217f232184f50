"""The parameters of the `http` source."""

import re
from dataclasses import dataclass
from pathlib import Path

from nbdserve.params import (
    BOOLEAN,
    COUNT,
    DURATION,
    PATH,
    SIZE,
    TEXT,
    TIMEOUT,
    Kind,
    Value,
    choice,
    param,
)

__all__ = ["HttpParams"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _parse_sha256(value: Value) -> str:
    text = str(value).strip().lower()
    if not _SHA256.fullmatch(text):
        raise ValueError("64 hexadecimal digits, as sha256sum prints them")
    return text


SHA256: Kind[str] = Kind("HEX", _parse_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParams:
    """Parameters of `http`."""

    url: tuple[str, ...] = param(
        TEXT, default=(), argument=True, many=True, help="the file, http:// or https://; a mirror"
    )
    metalink: str | None = param(
        TEXT, default=None, help="a .meta4 file, or its URL, that names mirrors, size and sha256"
    )
    metalink_name: str | None = param(
        TEXT, default=None, help="which file of the metalink, where it names several"
    )
    connections: int = param(
        COUNT, default=8, help="most requests to one server at once; how many is found by trying"
    )
    timeout: float = param(
        TIMEOUT, default=30.0, help="give a request up when no byte came for so long"
    )
    retry_for: float = param(
        DURATION,
        default=60.0,
        help="how long to go on trying without progress before a read fails",
    )
    deadline: float = param(
        TIMEOUT, default=300.0, help="how long a read may take in all before it fails"
    )
    hedge: bool = param(
        BOOLEAN,
        default=True,
        help="ask a second time, elsewhere if possible, where an answer is slower than nearly all",
    )
    max_rate: int | None = param(SIZE, default=None, help="most bytes a second; reads wait")
    max_bytes: int | None = param(
        SIZE, default=None, help="most bytes in all; beyond that reads fail"
    )
    max_requests: int | None = param(
        COUNT, default=None, help="most requests in all; beyond that reads fail"
    )
    sha256: str | None = param(SHA256, default=None, help="the whole file's hash; see `verify`")
    verify: str = param(
        choice("none", "background"),
        default="none",
        help="background: fetch the whole file once more, slowly, and hold it against sha256",
    )
    user: str | None = param(TEXT, default=None, help="user name for basic authentication")
    password_file: Path | None = param(
        PATH, default=None, help="file whose first line is the password"
    )
    bearer_file: Path | None = param(
        PATH, default=None, help="file whose first line is a bearer token"
    )
    header: tuple[str, ...] = param(
        TEXT,
        default=(),
        many=True,
        help="a header to send, `Name: value`; Authorization and Cookie to their host only",
    )
    header_file: Path | None = param(
        PATH, default=None, help="file of headers to send, one a line, for secrets"
    )
    cafile: Path | None = param(
        PATH, default=None, help="certificates to trust instead of the system's"
    )
    insecure: bool = param(BOOLEAN, default=False, help="do not verify the server's certificate")
    download_dir: Path | None = param(
        PATH, default=None, help="where a file goes whose server knows no ranges; else $TMPDIR"
    )
