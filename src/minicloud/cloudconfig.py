"""cloud-init's user-data, made out of what the operator asked for on the command line.

It is written as JSON, which is YAML too: no quoting can go wrong, and no library is needed. What
the operator brought in a file is left as it is and goes beside it, as a part of a MIME archive
(docs.cloud-init.io, "User-data formats").

Invariant: no password is in it, only its hash.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any, Final

from minicloud.errors import UsageError

__all__ = ["CloudOptions", "user_data"]

_HEADER: Final = "#cloud-config\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudOptions:
    """What cloud-init is to do.

    Attributes:
        ssh_keys: lines of authorized_keys, for the image's own user and for root.
        root_password: root's, as a hash of crypt(5), or None to leave it.
        packages: to install.
        commands: for the shell, in order, at the first start.
    """

    ssh_keys: tuple[str, ...] = ()
    root_password: str | None = None
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def user_data(options: CloudOptions, own: bytes | None = None) -> bytes:
    """Make the user-data.

    Args:
        options: what was asked for.
        own: a file of the operator's, in any of cloud-init's formats.

    Raises:
        UsageError: `own` has to stand beside others and is no text.
    """
    config = _config(options)
    if not config:
        return _HEADER.encode() + b"{}\n" if own is None else own
    made = f"{_HEADER}{json.dumps(config, indent=2)}\n"
    if own is None:
        return made.encode()
    try:
        text = own.decode()
    except UnicodeDecodeError:
        raise UsageError(
            "user-data that is no text goes with no other option; write keys, packages and "
            "passwords into it"
        ) from None
    archive = MIMEMultipart(boundary="==minicloud==")
    archive.attach(MIMEText(made, "cloud-config", "utf-8"))
    # as plain text cloud-init tells by the first line what it is
    archive.attach(MIMEText(text, "plain", "utf-8"))
    return archive.as_bytes()


def _config(options: CloudOptions) -> Mapping[str, Any]:
    config: dict[str, Any] = {}
    if options.ssh_keys:
        config["ssh_authorized_keys"] = list(options.ssh_keys)
    if options.ssh_keys or options.root_password is not None:
        # else root's keys get a command that sends whoever logs in away
        config["disable_root"] = False
    if options.root_password is not None:
        user = {"name": "root", "password": options.root_password, "type": "hash"}
        config["chpasswd"] = {"expire": False, "users": [user]}
    if options.packages:
        config["package_update"] = True
        config["packages"] = list(options.packages)
    if options.commands:
        config["runcmd"] = list(options.commands)
    return config
