"""Which of the addresses seen of a guest are worth telling, and in which order.

Left out is what nobody can reach the guest by: loopback, link-local, multicast, unspecified. An
address on a card the domain does not have (a bridge inside the guest, a container's network) comes
last: it is the guest's, but seldom reachable.
"""

import ipaddress
from collections.abc import Collection, Mapping, Sequence

from minicloud.model.address import Address, AddressSource, Seen

__all__ = ["useful_addresses"]

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def useful_addresses(
    seen: Mapping[AddressSource, Sequence[Seen]], macs: Collection[str]
) -> tuple[Address, ...]:
    """Merge what the sources said.

    Args:
        seen: by source; a source that was not asked, or said nothing, may be missing.
        macs: of the domain's own cards, lower case.

    Returns:
        Each address once: those of the domain's cards first, then by the trust in their best
        source, IPv4 before IPv6.
    """
    found: dict[_Ip, list[tuple[AddressSource, Seen]]] = {}
    for source in AddressSource:
        for one in seen.get(source, ()):
            address = _reachable(one.address)
            if address is not None:
                found.setdefault(address, []).append((source, one))
    merged = [(address, _merged(address, views)) for address, views in found.items()]
    merged.sort(key=lambda pair: _rank(pair[0], pair[1], macs))
    return tuple(address for _, address in merged)


def _reachable(text: str) -> _Ip | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    is_of_use = not (
        address.is_loopback or address.is_link_local or address.is_multicast
        or address.is_unspecified
    )  # fmt: skip
    return address if is_of_use else None


def _merged(address: _Ip, views: Sequence[tuple[AddressSource, Seen]]) -> Address:
    first = views[0][1]
    return Address(
        address=str(address),
        prefix=next((one.prefix for _, one in views if one.prefix), 0),
        mac=next((one.mac for _, one in views if one.mac), ""),
        interface=first.interface,
        sources=tuple(dict.fromkeys(source for source, _ in views)),
    )


def _rank(address: _Ip, merged: Address, macs: Collection[str]) -> tuple[bool, int, int]:
    trust = list(AddressSource).index(merged.sources[0])
    return merged.mac not in macs, trust, address.version
