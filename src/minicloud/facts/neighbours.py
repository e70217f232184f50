"""The node's ARP table, /proc/net/arp (proc(5)) → addresses of some cards.

libvirt has this table for a source too, but 9.0 cannot read it from newer kernels ("wrong nlmsg
len"); the kernel's own text is the same everywhere.
"""

from collections.abc import Collection
from typing import Final

from minicloud.model.address import Seen

__all__ = ["parse_arp"]

_COMPLETE: Final = 0x02  # ATF_COM: somebody answered for the address


def parse_arp(text: str, macs: Collection[str]) -> tuple[Seen, ...]:
    """Read the table.

    Args:
        text: of /proc/net/arp.
        macs: of the cards that are meant, lower case.
    """
    rows = [line.split() for line in text.splitlines()[1:]]
    return tuple(
        Seen(address=row[0], prefix=0, mac=row[3].lower(), interface=row[5])
        for row in rows
        if len(row) == 6 and int(row[2], 16) & _COMPLETE and row[3].lower() in macs
    )
