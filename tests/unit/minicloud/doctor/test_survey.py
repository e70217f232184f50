"""What a node's shell prints, and what it means; the command runs here for real."""

import subprocess
import time

import pytest

from minicloud.doctor.survey import KvmDevice, Survey, parse_survey, survey_command

PRINTED = """Welcome to ham1
time 1767323045.250000000
arch x86_64
module kvm_intel
kvm 660 root kvm
tool virt-customize
"""


def test_all_of_it_is_read_and_a_greeting_passed_over():
    assert parse_survey(PRINTED) == Survey(
        seconds=1767323045.25, arch="x86_64", modules={"kvm_intel"},
        kvm=KvmDevice(0o660, "root", "kvm"), tools={"virt-customize"},
    )  # fmt: skip


def test_a_date_without_nanoseconds_is_still_the_time():
    assert parse_survey("time 1767323045.%N").seconds == 1767323045.0
    assert parse_survey("time soon").seconds is None


def test_nothing_is_nothing():
    assert parse_survey("") == Survey(modules=set(), tools=set())


def test_the_command_prints_what_is_read():
    before = time.time()
    done = subprocess.run(survey_command(), capture_output=True, text=True, check=True)
    found = parse_survey(done.stdout)
    assert done.stderr == ""
    assert before - 1e-3 <= found.seconds <= time.time()
    assert found.arch


@pytest.mark.parametrize(
    ("mode", "group", "is_for_guests"),
    [
        (0o660, "kvm", True),
        (0o666, "root", True),
        (0o600, "root", False),
        (0o660, "root", False),  # nobody is in that group
        (0o640, "kvm", False),
    ],
)
def test_who_may_open_the_device(mode, group, is_for_guests):
    assert KvmDevice(mode, "root", group).is_for_guests is is_for_guests
