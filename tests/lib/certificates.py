"""Certificates for tests, under the file names of qemu and nbdkit, made by certtool in a second."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Authority"]


class Authority:
    """A certificate authority with a folder of its own."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificate = folder / "ca-cert.pem"
        self._key = folder / "ca-key.pem"
        _make_key(self._key)
        self._certtool(
            ["ca", "cert_signing_key", f"cn = {name}"], self.certificate,
            "--generate-self-signed", "--load-privkey", self._key,
        )  # fmt: skip

    def issue(
        self,
        folder: Path,
        kind: str,
        *,
        names: Sequence[str] = ("localhost",),
        addresses: Sequence[str] = ("127.0.0.1",),
        lines: Sequence[str] = ("expiration_days = 30",),
        clients: bool = False,
    ) -> Path:
        """Put KIND-cert.pem, KIND-key.pem and ca-cert.pem into a folder; return the folder.

        Args:
            folder: made if it is not there.
            kind: server or client.
            names: host names in it.
            addresses: IP addresses in it.
            lines: of certtool's template.
            clients: a server's that is good for a client too, as a migration wants it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca-cert.pem").write_bytes(self.certificate.read_bytes())
        key = folder / f"{kind}-key.pem"
        _make_key(key)
        template = [f"cn = {names[0]}", f"tls_www_{kind}", "signing_key", *lines]
        template += [f"dns_name = {name}" for name in names]
        template += [f"ip_address = {address}" for address in addresses]
        template += ["tls_www_client"] * clients
        self._certtool(
            template, folder / f"{kind}-cert.pem", "--generate-certificate", "--load-privkey", key,
            "--load-ca-certificate", self.certificate, "--load-ca-privkey", self._key,
        )  # fmt: skip
        return folder

    def _certtool(self, template: Sequence[str], out: Path, *options: object) -> None:
        file = self.folder / "template"
        file.write_text("\n".join(template) + "\n")
        _run("certtool", *options, "--template", file, "--outfile", out)


def _make_key(path: Path) -> None:
    _run("certtool", "--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1",
         "--outfile", path)  # fmt: skip


def _run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, timeout=60)
