import pytest

from minicloud.domain.devices import Card, Display, parse_devices


def devices(inner):
    return parse_devices(f"<domain><devices>{inner}</devices></domain>")


def disk(source, rest=""):
    [found] = devices(
        f"<disk type='x' device='disk'>{source}<target dev='vda' bus='virtio'/>{rest}</disk>"
    ).disks
    return found


def test_a_domain_without_devices_has_none():
    found = parse_devices("<domain/>")
    assert (found.disks, found.cards, found.displays) == ((), (), ())
    assert not found.has_agent


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<source protocol='nbd' name='guest/a'><host name='h' port='1'/></source>",
         "nbd://h:1/guest/a"),
        ("<source protocol='nbd' name='a'><host name='h'/></source>", "nbd://h/a"),
        ("<source protocol='nbd' name='a' tls='yes'><host name='h' port='1'/></source>",
         "nbds://h:1/a"),
        ("<source protocol='nbd' name='a'><host name='::1' port='1'/></source>", "nbd://[::1]:1/a"),
        ("<source protocol='nbd' name='a'><host transport='unix' socket='/s'/></source>",
         "nbd+unix:///a?socket=/s"),
        ("<source protocol='rbd' name='p/i'/>", "rbd:///p/i"),
        ("<source file='/a.img'/>", "/a.img"),
        ("<source dev='/dev/sdb'/>", "/dev/sdb"),
        ("<source pool='p' volume='v'/>", "p/v"),
        ("<source startupPolicy='optional'/>", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_behind_a_disk_is_named_as_other_tools_take_it(source, expected):
    assert disk(source).source == expected


def test_an_nbd_disk_tells_its_export_and_whether_it_reconnects():
    kept = disk("<source protocol='nbd' name='a'><host name='h'/><reconnect delay='9'/></source>")
    dropped = disk("<source protocol='nbd' name='a'><host name='h'/></source>")
    assert (kept.export, kept.reconnects) == ("a", True)
    assert (dropped.export, dropped.reconnects) == ("a", False)
    assert disk("<source file='/a'/>").reconnects is None


def test_a_disk_is_read_only_where_it_says_so():
    assert disk("", "<readonly/>").is_read_only
    assert not disk("").is_read_only


def test_a_card_tells_what_it_is_connected_to():
    found = devices(
        "<interface type='bridge'><mac address='52:54:00:AA:00:01'/><source bridge='br0'/>"
        "<target dev='vnet3'/><model type='virtio'/></interface>"
        "<interface type='user'><mac address='52:54:00:aa:00:02'/></interface>"
        "<interface type='direct'><source dev='eth0'/></interface>"
    )
    assert found.cards == (
        Card(mac="52:54:00:aa:00:01", model="virtio", kind="bridge", source="br0", target="vnet3"),
        Card(mac="52:54:00:aa:00:02", model="", kind="user", source="", target=""),
        Card(mac="", model="", kind="direct", source="eth0", target=""),
    )


def test_a_display_that_has_no_port_yet_has_none():
    found = devices(
        "<graphics type='vnc' port='5900' listen='127.0.0.1'/>"
        "<graphics type='spice' port='-1' tlsPort='5901'><listen type='address' address='::'/>"
        "</graphics><graphics type='vnc' socket='/s'/><graphics type='sdl'/>"
    )
    assert found.displays == (
        Display(kind="vnc", host="127.0.0.1", port=5900, tls_port=None, socket=None),
        Display(kind="spice", host="::", port=None, tls_port=5901, socket=None),
        Display(kind="vnc", host="", port=None, tls_port=None, socket="/s"),
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [("state='connected'", (True, True)), ("state='disconnected'", (True, False)),
     ("", (True, False))],
)  # fmt: skip
def test_an_agent_is_there_once_it_has_opened_its_channel(state, expected):
    found = devices(
        f"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' {state}/>"
        "</channel>"
    )
    assert (found.has_agent, found.is_agent_there) == expected


def test_another_channel_is_no_agent():
    assert not devices("<channel><target name='com.redhat.spice.0'/></channel>").has_agent
