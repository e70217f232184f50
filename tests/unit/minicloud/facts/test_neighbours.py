from minicloud.facts.neighbours import parse_arp
from minicloud.model.address import Seen

MAC = "52:54:00:ca:b6:ba"
TABLE = """\
IP address       HW type     Flags       HW address            Mask     Device
10.87.0.101      0x1         0x2         52:54:00:CA:B6:BA     *        vmbr0
10.87.0.254      0x1         0x2         5e:10:9a:33:b8:2e     *        vmbr0
10.87.0.7        0x1         0x0         52:54:00:ca:b6:ba     *        vmbr0
"""


def test_only_the_asked_for_cards_are_read_whatever_their_case():
    assert parse_arp(TABLE, [MAC]) == (Seen("10.87.0.101", 0, MAC, "vmbr0"),)


def test_an_address_nobody_answered_for_is_none():
    assert "10.87.0.7" not in [one.address for one in parse_arp(TABLE, [MAC])]


def test_an_empty_table_is_empty():
    assert parse_arp(TABLE.splitlines()[0], [MAC]) == ()
    assert parse_arp("", [MAC]) == ()
