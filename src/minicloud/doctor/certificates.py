"""The certificates for TLS between guests and their disks: there, valid, and trusted. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from minicloud.doctor.check import Check, Subject
from minicloud.doctor.exam import Exam, came
from minicloud.doctor.tlsfiles import AUTHORITY, CERTIFICATE, KEY, Certificates
from minicloud.doctor.tlstrial import Trial
from minicloud.errors import MinicloudError
from minicloud.model.inventory import NbdService

__all__ = ["check_certificates"]

_SOON: Final = timedelta(days=14)


def check_certificates(exam: Exam, nbd: NbdService | None) -> Iterator[Check]:
    """Judge whether a node that let us in has what its guests need for TLS, where they need it."""
    if nbd is None or not nbd.tls or nbd.socket is not None:
        return
    subject = Subject(exam.node.name)
    found = came(exam.certificates)
    if isinstance(found, MinicloudError):
        yield subject.failed("certificates", str(found), "give the user a shell on the node")
    else:
        yield _files(subject, found, datetime.now(UTC))
        if not found.files.get(AUTHORITY):
            yield subject.skipped("tls", "certificates failed")
            return
    trial = came(exam.tls)
    if isinstance(trial, MinicloudError):
        yield subject.warning("tls", f"could not be tried by way of the node: {trial}")
    else:
        yield _trial(subject, trial, nbd)


def _files(subject: Subject, found: Certificates, now: datetime) -> Check:
    folder = found.folder
    if AUTHORITY not in found.files:
        return subject.failed(
            "certificates",
            f"there is no {folder}/{AUTHORITY}, by which guests know the export server",
            "put the authority's certificate there, readable for qemu",
        )
    if (CERTIFICATE in found.files) is not (found.key is not None):
        missing = KEY if found.key is None else CERTIFICATE
        return subject.failed(
            "certificates", f"there is no {folder}/{missing}, and its counterpart is of no use",
            "put both there, as certtool made them",
        )  # fmt: skip
    parsed: dict[str, x509.Certificate] = {}
    for name, text in found.files.items():
        if not text:
            return subject.warning(
                "certificates", f"our user may not read {folder}/{name}", f"chmod 644 {name} there"
            )
        try:
            parsed[name] = x509.load_pem_x509_certificate(text.encode())
        except ValueError:
            return subject.failed(
                "certificates", f"{folder}/{name} is no certificate in PEM", "make it with certtool"
            )
    return _valid(subject, found, parsed, now)


def _valid(
    subject: Subject, found: Certificates, parsed: Mapping[str, x509.Certificate], now: datetime
) -> Check:
    folder = found.folder
    ends = {name: one.not_valid_after_utc for name, one in parsed.items()}
    name, end = min(ends.items(), key=lambda one: one[1])
    if end < now:
        return subject.failed(
            "certificates", f"{folder}/{name} has expired on {end:%Y-%m-%d}",
            "make a new one with certtool",
        )  # fmt: skip
    if CERTIFICATE in parsed and parsed[CERTIFICATE].issuer != parsed[AUTHORITY].subject:
        return subject.warning(
            "certificates", f"{folder}/{CERTIFICATE} is of another authority than {AUTHORITY}",
            "let both be of the authority that nbdserve's ca-cert.pem is of",
        )  # fmt: skip
    if found.key is not None and found.key[1] == "root" and not found.key[0] & 0o044:
        return subject.warning(
            "certificates", f"only root may read {folder}/{KEY}, and qemu is another user",
            f"chgrp libvirt-qemu {folder}/{KEY} && chmod 640 {folder}/{KEY}",
        )  # fmt: skip
    if end - now < _SOON:
        return subject.warning(
            "certificates", f"{folder}/{name} expires on {end:%Y-%m-%d}", "make a new one"
        )
    if CERTIFICATE not in parsed:
        return subject.warning(
            "certificates",
            f"there is no {folder}/{CERTIFICATE}: a server that wants one lets no guest in",
            "make one for each node with certtool, unless nbdserve has no --tls-verify-peer",
        )
    return subject.good("certificates", f"in {folder}, good until {end:%Y-%m-%d}")


def _trial(subject: Subject, trial: Trial, nbd: NbdService) -> Check:
    if trial.problem is None:
        return subject.good("tls", f"{trial.version}; the node trusts the export server")
    expected = nbd.tls_hostname or nbd.address
    remedy = {
        Trial.NO_TLS: "start nbdserve with --tls-certificates, or take `tls` out of [nbd]",
        Trial.NAME: f"a certificate with the name {expected}, or another `tls-hostname` in [nbd]",
        Trial.EXPIRED: "a new server-cert.pem for nbdserve, then send it SIGHUP",
        Trial.UNTRUSTED: f"the authority of nbdserve's certificate in the node's {AUTHORITY}",
        Trial.OTHER: "see nbdserve's log",
    }[trial.problem]
    return subject.failed("tls", trial.text, remedy)
