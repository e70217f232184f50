import io
from datetime import timedelta

from guestfacts import MADE, guest, origin
from minicloud.commands.info import Sight, info_outcome
from minicloud.domain.devices import parse_devices
from minicloud.errors import StorageError
from minicloud.hypervisor.inside import Inside, Traffic
from minicloud.hypervisor.power import Power
from minicloud.model.address import Address, AddressSource
from minicloud.model.guest import GuestKind, GuestState
from minicloud.render.output import print_outcome
from minicloud.storage.facts import ExportFacts, OverlayFacts

MAC = "52:54:00:00:00:01"
DEVICES = parse_devices(f"""<domain><devices>
  <disk type='network' device='disk'><source protocol='nbd' name='guest/web1'>
    <host name='nbd.lan' port='10809'/></source><target dev='vda' bus='virtio'/></disk>
  <disk type='network' device='disk'><source protocol='nbd' name='seed/web1'>
    <host name='nbd.lan' port='10809'/><reconnect delay='60'/></source>
    <target dev='vdb' bus='virtio'/><readonly/></disk>
  <interface type='bridge'><mac address='{MAC}'/><source bridge='br0'/><target dev='vnet0'/>
  </interface><graphics type='vnc' port='5900' listen='127.0.0.1'/>
  <channel type='unix'><target name='org.qemu.guest_agent.0' state='connected'/></channel>
  </devices></domain>""")
INSIDE = Inside(
    power=Power(GuestState.RUNNING, "booted", is_there=True, faults={}),
    devices=DEVICES,
    disks={"vda": Traffic(20 << 20, 1536, 100, 3)},
    cards={"vnet0": Traffic(999, 0, 9, 0)},
    cpu_seconds=12.34,
    resident=500 << 20,
    autostart=False,
)
ADDRESSES = [
    Address(address="10.0.0.9", prefix=24, mac=MAC, interface="eth0",
            sources=(AddressSource.LEASE, AddressSource.ARP))
]  # fmt: skip
EXPORTS = [
    ExportFacts(
        name=name, description="", size=1, connections=count, is_added=True, age=None, error=None
    )
    for name, count in (("guest/web1", 1), ("seed/web1", 2))
]
OVERLAYS = [
    OverlayFacts(name="web1.cow", path="/o/web1.cow", size=1 << 30, allocated=5 << 20,
                 export="guest/web1")
]  # fmt: skip
SIGHT = Sight(guest(), INSIDE, ADDRESSES, EXPORTS, OVERLAYS)

GOLDEN = """\
FACT         VALUE
name         web1
uuid         b71a78f6-6a6a-4329-b488-6d3e4cd88330
node         ham1
state        running (booted)
vcpus        2
memory       1.0G, 500M resident
kept         cattle, gone once it is off
cpu time     12.3 s
display      vnc 127.0.0.1:5900
guest agent  connected
template     debian
image        https://example.com/debian.xz
made         3h ago by op@desk
DISK          SOURCE                          READ  WRITTEN  OVERLAY  NOTE
vda (virtio)  nbd://nbd.lan:10809/guest/web1   20M     1.5K       5M  \
1 client, no reconnect: it pauses when nbdserve restarts
vdb (virtio)  nbd://nbd.lan:10809/seed/web1      -        -        -  read-only, 2 clients
CARD               ON          ADDRESSES              RECEIVED  SENT
52:54:00:00:00:01  bridge:br0  10.0.0.9 (lease, arp)      999B    0B
"""


def shown(sight):
    out = io.StringIO()
    print_outcome(info_outcome(sight, MADE + timedelta(hours=3)), as_json=False, out=out)
    return out.getvalue()


def changed(sight=SIGHT, **values):
    given = {name: getattr(sight, name) for name in Sight.__slots__}
    return Sight(**given | values)


def inside(**values):
    given = {name: getattr(INSIDE, name) for name in Inside.__slots__}
    return Inside(**given | values)


def test_a_guest_in_full():
    assert shown(SIGHT) == GOLDEN


def test_the_document_joins_disk_export_and_overlay():
    document = info_outcome(SIGHT, MADE).document
    assert document["errors"] == []
    disk = document["guest"]["disks"][0]
    assert disk["export"] == "guest/web1"
    assert (disk["served"], disk["clients"], disk["overlay_bytes"]) == (True, 1, 5 << 20)
    assert (disk["read_bytes"], disk["written_requests"]) == (
        20 << 20, 3,
    )  # fmt: skip
    assert disk["reconnects"] is False
    assert document["guest"]["origin"]["kind"] == "cattle"


def test_an_export_that_is_not_served_is_told_loudly():
    assert "NOT SERVED" in shown(changed(exports=EXPORTS[1:]))


def test_an_export_server_that_does_not_tell_is_an_error_beside_the_rest():
    sight = changed(exports=(), overlays=(), trouble=StorageError("unreachable", "no answer"))
    outcome = info_outcome(sight, MADE)
    assert outcome.status == 1
    assert outcome.errors == ["export server: no answer"]
    assert outcome.document["errors"][0]["reason"] == "storage-unreachable"
    assert outcome.document["guest"]["disks"][0]["served"] is None
    assert "NOT SERVED" not in shown(sight)


def test_a_disk_that_failed_says_so():
    power = Power(GuestState.PAUSED, "I/O error", is_there=True, faults={"vda": "no space"})
    text = shown(changed(inside=inside(power=power)))
    assert "paused (I/O error)" in text
    assert "no space" in text


def test_a_guest_minicloud_did_not_make_has_no_origin():
    sight = changed(guest=guest(origin=None, is_persistent=True), exports=(), overlays=())
    text = shown(sight)
    assert "template" not in text
    assert "kept         defined\n" in text
    assert info_outcome(sight, MADE).document["guest"]["origin"] is None


def test_a_pet_starts_with_its_node():
    sight = changed(
        guest=guest(origin=origin(kind=GuestKind.PET), is_persistent=True),
        inside=inside(autostart=True),
    )
    assert "kept         pet, defined, starts with its node" in shown(sight)


def test_an_overlay_no_export_uses_is_the_guests_by_its_name():
    unused = [OverlayFacts(name="web1.cow", path="/o/web1.cow", size=1, allocated=3 << 20,
                           export=None)]  # fmt: skip
    disk = info_outcome(changed(overlays=unused), MADE).document["guest"]["disks"][0]
    assert disk["overlay_bytes"] == 3 << 20
