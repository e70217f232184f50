"""The credentials for TLS: certificates or pre-shared keys, read at the start and upon SIGHUP.

What is wrong with them is told at the start, with the remedy, and not by the first client: after
reading, the server shakes hands with itself in memory, as a client that trusts the same authority
would. A reload that fails leaves what is in use as it is.

TLS is 1.2 or newer (NBD proto.md, "TLS support"). The names of the files are those of nbdkit and
qemu, so one folder serves all of them. A pre-shared key is taken in TLS 1.2 alone: for 1.3 Python's
ssl has no way to look one up.
"""

import errno
import logging
import ssl
import time
from pathlib import Path

from nbdserve.errors import ConfigError
from nbdserve.settings import TlsMode, TlsSettings

__all__ = ["Tls", "reason"]

log = logging.getLogger(__name__)

_CA, _CERTIFICATE, _KEY = "ca-cert.pem", "server-cert.pem", "server-key.pem"
_NOT_YET, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
# Forward secrecy alone; ChaCha first, for it is the only suite of them that is both that and AEAD
# in what GnuTLS (qemu, libnbd) and OpenSSL have in common.
_PSK_CIPHERS = "ECDHE-PSK-CHACHA20-POLY1305:kECDHEPSK"
_SHORTEST_KEY = 16  # bytes


class Tls:
    """The credentials in use; made by `open`.

    Attributes:
        is_required: clients must speak TLS.
        context: for the next connection; `reload` replaces it, and those there keep theirs.
    """

    def __init__(self, settings: TlsSettings, context: ssl.SSLContext) -> None:
        self._settings = settings
        self.is_required = settings.mode is TlsMode.REQUIRE
        self.context = context

    @classmethod
    def open(cls, settings: TlsSettings) -> "Tls | None":
        """Read the credentials; None where TLS is off. Blocks.

        Raises:
            ConfigError: there are none, or they will not do.
        """
        given = settings.certificates or settings.psk
        if settings.mode is TlsMode.OFF or (settings.mode is None and given is None):
            if settings.mode is None and settings.verify_peer:
                raise ConfigError("--tls-verify-peer needs --tls-certificates DIR")
            return None
        return cls(settings, _read(settings))

    def reload(self) -> None:
        """Read the credentials anew; if they will not do, those in use stay."""
        try:
            self.context = _read(self._settings)
        except ConfigError as exc:
            log.warning("TLS credentials not read anew, those in use stay: %s", exc)
        else:
            log.info("TLS credentials read anew")


def reason(exc: ssl.SSLError) -> str:
    """Say why a client's handshake failed, for the log."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate will not do: {exc.verify_message}"
    told = exc.reason or str(exc)
    known = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no certificate, which --tls-verify-peer wants",
        "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
        "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, it says",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
        "UNSUPPORTED_PROTOCOL": "it has only versions of TLS before 1.2",
        "NO_SHARED_CIPHER": "it has no cipher in common with us; pre-shared keys are one kind, "
        "certificates another",
        "PSK_IDENTITY_NOT_FOUND": "its name is not in the file of pre-shared keys",
    }
    if told in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL",
                "PACKET_LENGTH_TOO_LONG", "HTTPS_PROXY_REQUEST"}:  # fmt: skip
        return "what it sent is not TLS"
    return known.get(told, told.replace("_", " ").lower())


def _read(settings: TlsSettings) -> ssl.SSLContext:
    if settings.psk is not None:
        if settings.certificates is not None or settings.verify_peer:
            raise ConfigError("--tls-psk stands for certificates; name only one kind")
        return _read_psk(settings.psk)
    if settings.certificates is None:
        raise ConfigError(
            f"--tls={settings.mode} needs --tls-certificates DIR with {_CERTIFICATE}, {_KEY} and "
            f"{_CA} (certtool makes them), or --tls-psk FILE"
        )
    return _read_certificates(settings.certificates, verify_peer=settings.verify_peer)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0  # no session is ever resumed
    return context


def _read_certificates(folder: Path, *, verify_peer: bool) -> ssl.SSLContext:
    certificate, key, authority = folder / _CERTIFICATE, folder / _KEY, folder / _CA
    for path in (certificate, key, authority):
        if path is not authority or verify_peer or path.exists():
            _check_readable(path)
    context = _context()
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            text = f"{key} is not the key of {certificate}; put the one that belongs to it there"
        else:
            text = f"{certificate} or {key} is no certificate or key in PEM: {_told(exc)}"
        raise ConfigError(f"TLS: {text}") from exc
    except (OSError, ValueError) as exc:
        raise ConfigError(f"TLS: {key}: {exc}") from exc
    if authority.exists():
        try:
            context.load_verify_locations(authority)
        except (ssl.SSLError, OSError) as exc:
            raise ConfigError(f"TLS: {authority} holds no certificate in PEM: {exc}") from exc
        _check_chain(context, certificate, authority)
    if verify_peer:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_passphrase() -> str:
    raise ValueError("it is encrypted; store it without a passphrase, and mode 600")


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as exc:
        remedy = (
            "check its permissions: the server's user must be able to read it"
            if exc.errno == errno.EACCES
            else "make it with certtool or psktool, or check --tls-certificates and --tls-psk"
        )
        raise ConfigError(f"TLS: {path}: {exc.strerror}; {remedy}") from exc


def _check_chain(context: ssl.SSLContext, certificate: Path, authority: Path) -> None:
    """Warn of a certificate that clients will refuse: they are told less, and later."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(authority)
    try:
        shake_hands(client, context)
    except ssl.SSLCertVerificationError as exc:
        if exc.verify_code in (_EXPIRED, _NOT_YET):
            now = time.strftime("%Y-%m-%d", time.gmtime())
            what = "has expired" if exc.verify_code == _EXPIRED else "is not valid yet"
            text = f"{what} (today is {now}); make a new one, then send SIGHUP"
        else:
            text = f"is not one that {authority} vouches for: {exc.verify_message}"
        log.warning("TLS: clients will refuse %s: it or its authority %s", certificate, text)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Shake hands in memory.

    Raises:
        ssl.SSLError: one side refuses the other.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    while sides:
        for side in tuple(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                pass


def _read_psk(path: Path) -> ssl.SSLContext:
    keys = _parse_psk(path)
    context = _context()
    if not hasattr(context, "set_psk_server_callback"):
        raise ConfigError(
            "--tls-psk needs an ssl module of Python 3.13 or newer; use --tls-certificates"
        )
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_PSK_CIPHERS)
    context.set_psk_server_callback(lambda name: keys.get(name or "", b""), "nbdserve")
    return context


def _parse_psk(path: Path) -> dict[str, bytes]:
    """Read `name:key` lines, as psktool writes them and nbdkit reads them."""
    keys: dict[str, bytes] = {}
    _check_readable(path)
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"TLS: {path} is no text: {exc}") from exc
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, digits = line.strip().partition(":")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        if not name or len(key) < _SHORTEST_KEY:
            raise ConfigError(
                f"TLS: {path}: line {number} is not NAME:KEY, a key being at least "
                f"{2 * _SHORTEST_KEY} hexadecimal digits; psktool -u NAME -p {path} makes one"
            )
        keys[name] = key
    if not keys:
        raise ConfigError(f"TLS: {path} holds no key; psktool -u NAME -p {path} makes one")
    return keys


def _told(exc: ssl.SSLError) -> str:
    return (exc.reason or str(exc)).replace("_", " ").lower()
