"""What libvirt's test driver says it can do; the lab's nodes say it in tests/interop."""

import libvirt

from minicloud.hypervisor.abilities import read_abilities


def test_a_driver_that_writes_no_command_line_does_not_say_whether_it_reconnects():
    connection = libvirt.open("test:///default")
    try:
        found = read_abilities(connection, "ham1")
        assert found.reconnects is None
        assert found.networks == {"default"}
        assert found.facts.cpus == 16
        connection.networkLookupByName("default").destroy()
        assert read_abilities(connection, "ham1").networks == set()
    finally:
        connection.close()
