import pytest

from minicloud.commands.viewer import choose_display
from minicloud.domain.devices import parse_devices
from minicloud.errors import UsageError


def chosen(graphics):
    devices = parse_devices(f"<domain><devices>{graphics}</devices></domain>")
    return choose_display(devices, "web1 on ham1")


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_display_is_reached_where_it_listens(listen, host):
    display = chosen(f"<graphics type='vnc' port='5901' listen='{listen}'/>")
    assert (display.kind, display.host, display.port) == ("vnc", host, 5901)


def test_the_first_display_with_a_port_is_taken():
    display = chosen(
        "<graphics type='vnc' port='-1'/><graphics type='spice' port='5902' listen='::1'/>"
    )
    assert (display.kind, display.port) == ("spice", 5902)


@pytest.mark.parametrize(
    ("graphics", "words"),
    [
        ("", "has no display; minicloud console"),
        ("<graphics type='vnc' socket='/s'/>", "Unix socket"),
        ("<graphics type='spice' port='-1' tlsPort='5901'/>", "TLS alone"),
    ],
)
def test_what_cannot_be_shown_says_why(graphics, words):
    with pytest.raises(UsageError, match=words):
        chosen(graphics)
