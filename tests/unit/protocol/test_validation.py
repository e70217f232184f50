"""Validation: the table of PROTOCOL's transmission phase, a row a test."""

import pytest

from nbdserve.protocol.constants import (
    MAX_PAYLOAD,
    Command,
    CommandFlag,
    TransmissionFlag,
    WireError,
)
from nbdserve.protocol.messages import ExportFacts, Negotiated, ReplyMode, Request
from nbdserve.protocol.validation import refusal

SIZE = 10_000
ALL = TransmissionFlag(0xFFFF) & ~TransmissionFlag.READ_ONLY
BARE = TransmissionFlag.HAS_FLAGS
RANGED = [Command.READ, Command.WRITE, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES]


def negotiated(flags=ALL, *, mode=ReplyMode.EXTENDED, minimum=1, base=True, size=SIZE):
    facts = ExportFacts("", "", size, flags, minimum, max(minimum, 4096), 32 << 20)
    return Negotiated(facts, mode, base)


def error_of(command, offset=0, length=512, flags=0, **session):
    found = refusal(Request(flags, command, 1, offset, length), negotiated(**session))
    return found and found.error


@pytest.mark.parametrize("command", [*RANGED, Command.BLOCK_STATUS])
def test_a_request_inside_the_export_is_carried_out(command):
    assert error_of(command, SIZE - 512, 512) is None


@pytest.mark.parametrize("command", list(Command))
def test_fua_is_accepted_on_every_command(command):
    """Mistake (8): Linux sets FUA on reads."""
    length = 0 if command in (Command.FLUSH, Command.DISC) else 512
    assert error_of(command, 0, length, CommandFlag.FUA) is None


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Command.READ, WireError.EINVAL),
        (Command.TRIM, WireError.EINVAL),
        (Command.CACHE, WireError.EINVAL),
        (Command.BLOCK_STATUS, WireError.EINVAL),
        (Command.WRITE, WireError.ENOSPC),
        (Command.WRITE_ZEROES, WireError.ENOSPC),
    ],
)
def test_past_the_end_is_einval_or_for_writes_enospc(command, error):
    assert error_of(command, SIZE - 511, 512) == error
    assert error_of(command, SIZE, 1) == error


@pytest.mark.parametrize("command", RANGED)
@pytest.mark.parametrize("offset", [(1 << 64) - 1, (1 << 64) - 512, (1 << 63), (1 << 32) - 1])
def test_sums_of_offset_and_length_never_wrap(command, offset):
    """Mistake (15): 32-bit (and 64-bit) sums."""
    assert error_of(command, offset, 512) in (WireError.EINVAL, WireError.ENOSPC)


@pytest.mark.parametrize("command", [Command.WRITE, Command.TRIM, Command.WRITE_ZEROES])
def test_writes_to_a_read_only_export_are_eperm_even_past_the_end(command):
    read_only = ALL | TransmissionFlag.READ_ONLY
    assert error_of(command, flags=0, offset=0) is None
    found = refusal(Request(0, command, 1, SIZE, 512), negotiated(read_only))
    assert found.error is WireError.EPERM


@pytest.mark.parametrize(
    "command", [Command.FLUSH, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES]
)
def test_a_command_that_was_not_offered_is_einval(command):
    length = 0 if command is Command.FLUSH else 512
    found = refusal(Request(0, command, 1, 0, length), negotiated(BARE))
    assert found.error is WireError.EINVAL


@pytest.mark.parametrize("command", [4097, 8, 0xFFFF])
def test_an_unknown_command_is_einval(command):
    assert error_of(command) is WireError.EINVAL


@pytest.mark.parametrize("command", list(Command))
def test_an_unknown_flag_is_einval(command):
    assert error_of(command, flags=1 << 15) is WireError.EINVAL


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (Command.READ, CommandFlag.NO_HOLE),
        (Command.WRITE, CommandFlag.DF),
        (Command.TRIM, CommandFlag.FAST_ZERO),
        (Command.READ, CommandFlag.REQ_ONE),
        (Command.READ, CommandFlag.PAYLOAD_LEN),
        (Command.BLOCK_STATUS, CommandFlag.PAYLOAD_LEN),
    ],
)
def test_a_flag_of_another_command_is_einval(command, flag):
    assert error_of(command, flags=flag) is WireError.EINVAL


def test_fast_zero_not_advertised_is_einval():
    flags = ALL & ~TransmissionFlag.SEND_FAST_ZERO
    found = refusal(
        Request(CommandFlag.FAST_ZERO, Command.WRITE_ZEROES, 1, 0, 1), negotiated(flags)
    )
    assert found.error is WireError.EINVAL
    assert error_of(Command.WRITE_ZEROES, flags=CommandFlag.FAST_ZERO) is None


def test_df_needs_structured_replies():
    assert error_of(Command.READ, flags=CommandFlag.DF) is None
    assert error_of(Command.READ, flags=CommandFlag.DF, mode=ReplyMode.SIMPLE) is WireError.EINVAL


def test_payload_len_needs_extended_headers():
    flags = CommandFlag.PAYLOAD_LEN
    assert error_of(Command.WRITE, flags=flags) is None
    assert error_of(Command.WRITE, flags=flags, mode=ReplyMode.STRUCTURED) is WireError.EINVAL


def test_block_status_without_a_negotiated_context_is_einval():
    assert error_of(Command.BLOCK_STATUS, base=False) is WireError.EINVAL


def test_block_status_of_no_bytes_is_einval():
    assert error_of(Command.BLOCK_STATUS, length=0) is WireError.EINVAL


@pytest.mark.parametrize("command", RANGED)
def test_zero_length_is_no_error(command):
    assert error_of(command, 0, 0) is None
    assert error_of(command, SIZE, 0) is None


@pytest.mark.parametrize("command", [Command.TRIM, Command.WRITE_ZEROES, Command.CACHE])
def test_ranges_without_payload_may_be_as_long_as_the_wire_allows(command):
    """Mistake (6): WRITE_ZEROES cut short."""
    assert error_of(command, 0, (1 << 32) - 1, size=1 << 40) is None
    assert error_of(command, 0, 1 << 39, size=1 << 40) is None


@pytest.mark.parametrize("command", [Command.READ, Command.WRITE])
def test_more_payload_than_the_maximum_is_einval(command):
    assert error_of(command, 0, MAX_PAYLOAD, size=1 << 40) is None
    assert error_of(command, 0, MAX_PAYLOAD + 1, size=1 << 40) is WireError.EINVAL


@pytest.mark.parametrize("command", [*RANGED, Command.BLOCK_STATUS])
def test_the_unaligned_tail_can_be_reached_when_the_minimum_block_is_over_1(command):
    """Mistake (16)."""
    assert error_of(command, 9728, SIZE - 9728, minimum=512) is None
    assert error_of(command, 0, 1024, minimum=512) is None
    assert error_of(command, 0, 1000, minimum=512) is WireError.EINVAL
    assert error_of(command, 100, 412, minimum=512) is WireError.EINVAL


def test_flush_takes_no_range():
    assert error_of(Command.FLUSH, 0, 0) is None
    assert error_of(Command.FLUSH, 0, 512) is WireError.EINVAL


def test_every_refusal_tells_why():
    for command in (*RANGED, 99):
        found = refusal(Request(0, command, 1, SIZE, 1), negotiated())
        assert found is not None
        assert found.text
