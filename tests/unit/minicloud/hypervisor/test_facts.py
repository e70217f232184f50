"""What libvirt's own test driver says of itself."""

import libvirt
import pytest

from minicloud.hypervisor.facts import read_facts, version
from minicloud.hypervisor.states import ACTIVE, reason_of, state_of
from minicloud.model.guest import GuestKind, GuestState

METADATA = """<metadata>
  <minicloud:guest xmlns:minicloud="https://nbdserve.org/minicloud/1" kind="pet" template="t"
    image="https://img/x.xz" export="guest/web1" created="2026-01-02T03:04:05Z" user="ruth"/>
</metadata>"""


@pytest.fixture
def connection():
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


def define(connection, name, metadata=""):
    return connection.defineXML(
        f"<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>3</vcpu>"
        f"{metadata}<os><type>hvm</type></os></domain>"
    )


def test_a_node_and_its_guests(connection):
    define(connection, "web1", METADATA)
    facts = read_facts(connection, "ham1")
    assert (facts.cpus, facts.memory, facts.memory_available) == (16, 3 << 30, None)
    assert facts.libvirt >= (9, 0, 0)
    other, web1 = facts.guests
    assert (other.name, other.state, other.is_active, other.origin) == (
        "test", GuestState.RUNNING, True, None,
    )  # fmt: skip
    assert (web1.node, web1.state, web1.is_active) == ("ham1", GuestState.SHUTOFF, False)
    assert (web1.vcpus, web1.memory, web1.is_persistent) == (3, 64 << 20, True)
    assert (web1.origin.kind, web1.origin.export) == (GuestKind.PET, "guest/web1")
    assert facts.memory_used == other.memory


def test_what_minicloud_wrote_is_left_out_where_nobody_needs_it(connection):
    define(connection, "web1", METADATA)
    assert read_facts(connection, "ham1", with_origin=False).guests[1].origin is None


def test_a_transient_guest_is_told_from_a_persistent_one(connection):
    connection.createXML(
        "<domain type='test'><name>cow</name><memory>1</memory><os><type>hvm</type></os></domain>"
    )
    kept = {guest.name: guest.is_persistent for guest in read_facts(connection, "x").guests}
    assert kept == {"cow": False, "test": True}


def test_a_paused_guest_says_why(connection):
    connection.lookupByName("test").suspend()
    [guest] = read_facts(connection, "x").guests
    assert (guest.state, guest.reason, guest.is_active) == (GuestState.PAUSED, "user", True)


def test_versions_are_split_as_libvirt_packs_them():
    assert version(9002001) == (9, 2, 1)


def test_each_of_libvirts_states_has_its_name():
    numbers = {
        libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
        libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
        libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.SHUTDOWN,
        libvirt.VIR_DOMAIN_SHUTOFF: GuestState.SHUTOFF,
        libvirt.VIR_DOMAIN_CRASHED: GuestState.CRASHED,
        libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.SUSPENDED,
        99: GuestState.UNKNOWN,
        -1: GuestState.UNKNOWN,
    }
    assert {number: state_of(number) for number in numbers} == numbers
    assert GuestState.SHUTOFF not in ACTIVE


@pytest.mark.parametrize(
    ("state", "number", "words"),
    [
        (GuestState.PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, "I/O error"),
        (GuestState.PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, "migrating"),
        (GuestState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, "crashed"),
        (GuestState.RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATION_CANCELED, "migration canceled"),
        (GuestState.RUNNING, 0, ""),
        (GuestState.RUNNING, 999, ""),
        (GuestState.UNKNOWN, 1, ""),
    ],
)
def test_reasons_have_libvirts_words(state, number, words):
    assert reason_of(state, number) == words
