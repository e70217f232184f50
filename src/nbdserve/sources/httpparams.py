"""The parameters of the `http` source."""

from dataclasses import dataclass
from pathlib import Path

from nbdserve.params import BOOLEAN, COUNT, DURATION, PATH, TEXT, param

__all__ = ["HttpParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParams:
    """Parameters of `http`."""

    url: str = param(TEXT, argument=True, help="the file, http:// or https://")
    connections: int = param(COUNT, default=8, help="requests to the server at once")
    timeout: float = param(
        DURATION, default=30.0, help="give a request up when no byte came for so long"
    )
    retry_for: float = param(
        DURATION,
        default=60.0,
        help="how long to go on trying without progress before a read fails",
    )
    user: str | None = param(TEXT, default=None, help="user name for basic authentication")
    password_file: Path | None = param(
        PATH, default=None, help="file whose first line is the password"
    )
    bearer_file: Path | None = param(
        PATH, default=None, help="file whose first line is a bearer token"
    )
    header: tuple[str, ...] = param(
        TEXT, default=(), many=True, help="a header to send, `Name: value`"
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
