"""Who holds guests' disks, out of nbdserve's status."""

from minicloud.commands.evidence import clients_by_guest


def client(export, peer):
    return {"export": export, "peer": peer, "requests": 3, "seconds": 1.5}


def test_addresses_are_read_of_clients_of_guests_alone():
    status = {
        "clients": [
            client("guest/web1", "10.0.0.1:40122"),
            client("guest/web1", "10.0.0.2:40123"),
            client("guest/web2", "[fe80::1]:40124"),
            client("guest/web3", "unix:12"),
            client("seed/web1", "10.0.0.9:40125"),
            client(None, "10.0.0.9:40126"),
        ]
    }

    assert clients_by_guest(status) == {
        "web1": frozenset({"10.0.0.1", "10.0.0.2"}),
        "web2": frozenset({"fe80::1"}),
    }


def test_a_server_without_clients_has_none():
    assert clients_by_guest({}) == {}
