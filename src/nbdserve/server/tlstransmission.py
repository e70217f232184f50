"""The transmission phase over TLS: the same, but for what OpenSSL holds and the kernel cannot send.

Apart from `Transmission`, so that what is served in the clear does not pay for it: not for asking
after bytes that are here already though the socket is not readable, not for the choice of sendfile.
"""

import asyncio

from nbdserve.protocol.messages import Negotiated, Request
from nbdserve.server.exports import Export
from nbdserve.server.limits import Limits
from nbdserve.server.transmission import Transmission
from nbdserve.tlssocket import TlsSocket

__all__ = ["TlsTransmission"]


class TlsTransmission(Transmission):
    """Serve requests on a TLS session; see `Transmission`.

    Args:
        tls: borrowed.
        export: what is served.
        negotiated: the outcome of the handshake.
        limits: bounds on what one connection may have under way.
        peer: how logs call the client.
    """

    def __init__(
        self, tls: TlsSocket, export: Export, negotiated: Negotiated, limits: Limits, *, peer: str
    ) -> None:
        self._tls = tls
        self._again: asyncio.Handle | None = None
        super().__init__(tls, export, negotiated, limits, peer=peer)

    def _readable(self) -> None:
        super()._readable()
        self._watch()

    def _watch(self) -> None:
        """Receive again soon, if it is wanted and something is held that no event will tell of."""
        super()._watch()
        if self._reading and self._tls.pending:
            if self._again is None:
                self._again = self._loop.call_soon(self._receive_again)
        elif self._again is not None:
            self._again.cancel()
            self._again = None

    def _receive_again(self) -> None:
        self._again = None
        self._readable()

    def _send_from_file(self, _request: Request, _batch: list[bytes | memoryview]) -> bool:
        return False  # what sendfile sends is not encrypted
