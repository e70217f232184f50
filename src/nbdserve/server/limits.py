"""What one client may cost the server."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds for one connection.

    Attributes:
        handshake_timeout: seconds from connect to the end of option haggling.
        max_in_flight: requests being carried out at once; more wait unread in the socket.
        max_in_flight_bytes: bytes of data of those requests; one request is always admitted.
    """

    handshake_timeout: float = 10.0
    max_in_flight: int = 256
    max_in_flight_bytes: int = 8 << 20
