"""What start, stop, reboot and resume decide and say; that they do it is in tests/interop."""

import argparse

import pytest

from guestfacts import guest, origin
from minicloud.commands import reboot, start, stop
from minicloud.commands.exports import export_trouble
from minicloud.commands.patience import add_patience, grace_of, refuse_deaf
from minicloud.commands.resume import remedy_for, why_paused
from minicloud.errors import NodeError, UsageError
from minicloud.hypervisor.power import Asking, Rebooted, Stopped
from minicloud.model.guest import GuestKind, GuestState
from minicloud.storage.facts import ExportFacts

PAUSED = guest(state=GuestState.PAUSED, reason="I/O error")
OFF = guest(state=GuestState.SHUTOFF, is_active=False)


def export(name, **changed):
    given = {"name": name, "description": "", "size": 1, "connections": 0, "is_added": True,
             "age": None, "error": None}  # fmt: skip
    return ExportFacts(**given | changed)


SERVED = [export("guest/web1"), export("seed/web1"), export("other", connections=9)]


@pytest.mark.parametrize(
    ("grace", "timeout", "now", "seconds"),
    [
        (None, None, False, 60),
        (5, None, False, 5),
        (None, None, True, 0),
        (0, None, True, 0),
        (None, 120, False, 60),
        (None, 40, False, 25),
        (None, 10, False, 5),  # it is asked, however little time there is
        (10, 20, False, 10),
    ],
)
def test_a_guest_has_the_time_that_was_asked_for_within_the_whole(grace, timeout, now, seconds):
    assert grace_of(grace, timeout, now=now) == seconds


@pytest.mark.parametrize(("grace", "timeout", "now"), [(5, None, True), (30, 20, False)])
def test_options_that_contradict_each_other_are_refused(grace, timeout, now):
    with pytest.raises(UsageError):
        grace_of(grace, timeout, now=now)


def test_patience_is_read_off_the_command_line():
    parser = argparse.ArgumentParser()
    add_patience(parser, "reset")
    given = parser.parse_args(["--grace", "2m", "--mode", "guest-agent"])
    assert (given.grace, given.mode, given.now) == (120, Asking.AGENT, False)
    assert parser.parse_args([]).mode is Asking.AUTO
    assert "--now" in parser.format_help()


def test_a_paused_guest_cannot_hear_what_it_is_asked():
    with pytest.raises(UsageError, match=r"is paused \(I/O error\) and cannot hear .* --now"):
        refuse_deaf(PAUSED)
    refuse_deaf(guest())


@pytest.mark.parametrize(
    ("stopped", "grace", "did", "text"),
    [
        (Stopped(False, True, 3.21), 60, "stopped", "off after 3.2 s"),
        (Stopped(True, True, 61), 60, "forced", "did not stop in 60 s: switched off"),
        (Stopped(True, True, 0.1), 0, "forced", "switched off"),
        (Stopped(False, False, 3), 60, "stopped",
         "off after 3.0 s; it was cattle and is gone, minicloud gc frees its disk"),
    ],
)  # fmt: skip
def test_stop_says_how_a_guest_came_to_be_off(stopped, grace, did, text):
    deed = stop.stopped_deed(guest(), stopped, grace)
    assert (deed.did, deed.text) == (did, text)


@pytest.mark.parametrize("made", [None, origin(kind=GuestKind.PET)])
def test_of_a_transient_guest_that_is_no_cattle_gc_frees_nothing(made):
    deed = stop.stopped_deed(guest(origin=made), Stopped(False, False, 3), 60)
    assert deed.text == "off after 3.0 s; it was transient and is gone"


@pytest.mark.parametrize(
    ("rebooted", "grace", "did", "text"),
    [
        (Rebooted(False, False, 2), 60, "rebooted", "started anew after 2.0 s"),
        (Rebooted(True, False, 60), 60, "reset", "did not start anew in 60 s: reset"),
        (Rebooted(True, False, 0), 0, "reset", "reset"),
    ],
)
def test_reboot_says_how_a_guest_came_to_start_anew(rebooted, grace, did, text):
    deed = reboot.rebooted_deed(rebooted, grace)
    assert (deed.did, deed.text) == (did, text)


def test_a_guest_that_stopped_instead_is_an_error_with_a_remedy():
    with pytest.raises(NodeError, match=r"stopped instead .* minicloud start"):
        reboot.rebooted_deed(Rebooted(False, True, 2), 60)


def test_start_is_for_guests_that_are_off():
    assert start.is_to_start(OFF)
    assert not start.is_to_start(guest())
    with pytest.raises(UsageError, match=r"is paused \(I/O error\), not off; minicloud resume"):
        start.is_to_start(PAUSED)


@pytest.mark.parametrize(
    ("reason", "faults", "text"),
    [
        ("I/O error", {"vda": "I/O error"}, "was paused: I/O error (vda)"),
        ("I/O error", {"vda": "no space", "vdb": "I/O error"},
         "was paused: I/O error (vda: no space)"),
        ("user", {}, "was paused: user"),
        ("", {}, "was paused: for no reason given"),
    ],
)  # fmt: skip
def test_resume_says_why_a_guest_was_paused(reason, faults, text):
    assert why_paused(reason, faults) == text


def test_a_full_file_system_is_not_looked_for_in_the_network():
    assert "make room" in remedy_for({"vda": "no space"})
    assert "doctor" in remedy_for({"vda": "unspecified error"})


def test_a_guest_whose_exports_are_served_for_it_alone_may_run():
    assert export_trouble(origin(), SERVED, may_be_in_use=False) is None
    assert export_trouble(origin(seed=None), SERVED[:1], may_be_in_use=False) is None


@pytest.mark.parametrize("missing", ["guest/web1", "seed/web1"])
def test_an_export_that_is_not_served_is_named(missing):
    served = [one for one in SERVED if one.name != missing]
    trouble = export_trouble(origin(), served, may_be_in_use=True)
    assert trouble.kind == "unknown-export"
    assert missing in str(trouble)


def test_an_export_that_cannot_be_opened_says_why():
    broken = [export("guest/web1", error="http: 404"), *SERVED[1:]]
    trouble = export_trouble(origin(), broken, may_be_in_use=True)
    assert trouble.kind == "device"
    assert "http: 404" in str(trouble)


def test_a_disk_somebody_else_uses_is_refused_unless_it_may_be_the_guest_itself():
    used = [export("guest/web1", connections=1), *SERVED[1:]]
    assert export_trouble(origin(), used, may_be_in_use=True) is None
    assert export_trouble(origin(), used, may_be_in_use=False).kind == "busy"
