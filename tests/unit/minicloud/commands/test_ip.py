from guestfacts import guest
from minicloud.commands.ip import ip_outcome
from minicloud.hypervisor.sightings import Sightings
from minicloud.model.address import AddressSource, Seen
from minicloud.model.view import Table

LEASE, AGENT, ARP = AddressSource
MAC = "52:54:00:00:00:01"


def test_each_address_is_told_with_all_who_know_it():
    seen = {
        AGENT: (Seen("10.0.0.9", 24, MAC, "eth0"), Seen("2001:db8::9", 64, MAC, "eth0")),
        ARP: (Seen("10.0.0.9", 0, MAC, "vmbr0"),),
    }
    outcome = ip_outcome(guest(), Sightings(seen, {}, frozenset({MAC})))
    assert outcome.views == [
        Table(
            ("address", "source", "interface", "mac"),
            [("10.0.0.9", "agent, arp", "eth0", MAC), ("2001:db8::9", "agent", "eth0", MAC)],
        )
    ]
    assert outcome.document["addresses"][0] == {
        "address": "10.0.0.9", "prefix": 24, "mac": MAC, "interface": "eth0",
        "sources": ["agent", "arp"],
    }  # fmt: skip
    assert outcome.status == 0


def test_where_nobody_knows_one_each_source_says_why():
    sightings = Sightings(
        {AGENT: (Seen("169.254.0.1", 16, MAC, "eth0"),)},
        {LEASE: "network 'x' is not active"},
        frozenset({MAC}),
    )
    outcome = ip_outcome(guest(), sightings)
    assert outcome.status == 2
    [line] = outcome.errors
    assert line == (
        "nobody knows an address of web1 on ham1: network 'x' is not active; only 169.254.0.1 by "
        "agent; the node has not heard from it; it may still be starting; minicloud console shows"
    )
    assert outcome.document["errors"][0]["reason"] == "no-address"


def test_a_guest_without_a_card_has_no_address():
    assert "it has no network card" in ip_outcome(guest(), Sightings({}, {}, frozenset())).errors[0]
