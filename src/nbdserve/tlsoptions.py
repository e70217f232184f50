"""The options about TLS on the command line, and what they amount to beside a configuration."""

import argparse
from pathlib import Path
from typing import Any

from nbdserve.settings import TlsMode, TlsSettings

__all__ = ["add_tls_options", "tls_settings"]


def add_tls_options(group: Any) -> None:
    """Add them to an argument group; their names are nbdkit's."""
    group.add_argument(
        "--tls", choices=[mode.value for mode in TlsMode], metavar="off|on|require",
        help="whether clients may or must speak TLS (default on with credentials, else off)",
    )  # fmt: skip
    group.add_argument(
        "--tls-certificates", type=Path, metavar="DIR",
        help="a folder with server-cert.pem, server-key.pem and ca-cert.pem; SIGHUP reads it anew",
    )  # fmt: skip
    group.add_argument(
        "--tls-verify-peer",
        action="store_true",
        help="let in only clients with a certificate of ca-cert.pem",
    )
    group.add_argument(
        "--tls-psk", type=Path, metavar="FILE",
        help="a file of pre-shared keys, NAME:HEXKEY a line, instead; needs Python 3.13",
    )  # fmt: skip


def tls_settings(arguments: argparse.Namespace, written: TlsSettings) -> TlsSettings:
    """Let what stands on the command line replace what a file says."""
    return TlsSettings(
        written.mode if arguments.tls is None else TlsMode(arguments.tls),
        arguments.tls_certificates or written.certificates,
        arguments.tls_verify_peer or written.verify_peer,
        arguments.tls_psk or written.psk,
    )
