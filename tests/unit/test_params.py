"""Parameters: kinds read and shown, keys matched, mistakes told."""

from dataclasses import dataclass

import pytest

from nbdserve.errors import ConfigError
from nbdserve.params import (
    BOOLEAN,
    COUNT,
    DURATION,
    FRACTION,
    INTEGER,
    MODE,
    PORT,
    SIZE,
    TEXT,
    TIMEOUT,
    choice,
    closest,
    param,
    params_from,
    params_of,
    shown,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    size: int = param(SIZE, argument=True, help="size")
    max_block: int = param(SIZE, default=1 << 20, help="block")
    url: tuple[str, ...] = param(TEXT, default=(), many=True, help="addresses")


def make(*given):
    return params_from(Params, given, element="layer x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("512", 512), ("64K", 65536), ("64k", 65536), ("1M", 1 << 20), ("2G", 2 << 30),
        ("1T", 1 << 40), ("16MiB", 16 << 20), ("16MB", 16 << 20), ("1.5K", 1536), (4096, 4096),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)  # fmt: skip
def test_sizes(text, value):
    assert SIZE.parse(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1X", "M", "1 2", True, 1.5, -3])
def test_what_is_no_size(text):
    if text == 1.5:
        assert SIZE.parse(text) == 1  # "1.5" bytes: rounded down like any fraction
        return
    with pytest.raises(ValueError, match="a size in bytes"):
        SIZE.parse(text)


@pytest.mark.parametrize("text", ["8E", 1 << 63, "9223372036854775808", "8388608.5T"])
def test_a_size_fits_63_bits(text):
    with pytest.raises(ValueError, match="less than 8E"):
        SIZE.parse(text)


def test_numbers_of_absurd_length_are_refused_like_any_other_word():
    with pytest.raises(ValueError, match="a size in bytes"):
        SIZE.parse("9" * 5000 + ".5")
    with pytest.raises(ValueError, match="a duration"):
        DURATION.parse("9" * 5000)


def test_a_count_and_a_timeout_are_over_0():
    assert COUNT.parse("1") == 1
    assert TIMEOUT.parse("1ms") == 0.001
    with pytest.raises(ValueError, match="1 or more"):
        COUNT.parse("0")
    with pytest.raises(ValueError, match="over 0"):
        TIMEOUT.parse("0s")


def test_a_mode_is_the_permissions_alone():
    assert [MODE.parse(text) for text in ("0", "660", "0660", "777")] == [0, 0o660, 0o660, 0o777]
    for text in ("8", "-1", "7777", "1777", "0o660", "", 660):
        with pytest.raises(ValueError, match="octal mode"):
            MODE.parse(text)


@pytest.mark.parametrize("value", [0, 1, 1000, 1024, 1536, 1 << 20, 3 << 30, (1 << 40) + 1])
def test_a_size_that_is_shown_reads_back(value):
    assert SIZE.parse(SIZE.show(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("2", 2), (3, 3)]
)
def test_durations(text, seconds):
    assert DURATION.parse(text) == seconds
    assert DURATION.parse(DURATION.show(seconds)) == seconds


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (DURATION, "soon"), (DURATION, True), (INTEGER, "1.5"), (INTEGER, "-1"), (INTEGER, True),
        (BOOLEAN, "maybe"), (FRACTION, "2"), (FRACTION, "150%"), (FRACTION, "x"), (PORT, "65536"),
        (PORT, "http"), (choice("a", "b"), "c"),
    ],
)  # fmt: skip
def test_what_will_not_do(kind, bad):
    with pytest.raises(ValueError, match=r".+"):
        kind.parse(bad)


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("off", False), (True, True), ("0", False)]
)
def test_booleans(text, value):
    assert BOOLEAN.parse(text) is value


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("1%", 0.01), ("100%", 1), (1, 1)])
def test_fractions(text, value):
    assert FRACTION.parse(text) == value


def test_keys_may_be_written_with_either_hyphen():
    assert make(("size", "1"), ("max-block", "2")) == make(("size", "1"), ("max_block", "2"))


def test_the_bare_argument_sets_the_parameter_declared_for_it():
    assert make(("", "1M")).size == 1 << 20


def test_a_key_that_may_come_often_is_a_tuple():
    assert make(("", "1"), ("url", "a"), ("url", "b")).url == ("a", "b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "layer x: needs SIZE: size"),
        ([("", "1"), ("siez", "2")], "unknown key 'siez'; did you mean 'size'"),
        ([("size", "1"), ("", "2")], "size: given twice"),
        ([("size", "big")], "size: 'big' will not do: a size in bytes"),
    ],
)
def test_mistakes_are_told_with_element_and_key(given, message):
    with pytest.raises(ConfigError, match=message):
        make(*given)


def test_declarations_can_be_listed_for_help_pages():
    size, block, url = params_of(Params)
    assert (size.key, size.required, size.argument) == ("size", True, True)
    assert (block.key, block.required, block.default) == ("max-block", False, 1 << 20)
    assert url.many


def test_the_closest_word_is_named_or_all_of_them():
    assert closest("sise", ["size", "offset"]) == "did you mean 'size'? (known: offset, size)"
    assert closest("zzz", ["size"]) == "known: size"
    assert closest("zzz", []) == "it takes none"


def test_a_long_value_is_told_by_its_beginning():
    assert shown("short") == "'short'"
    told = shown("x" * 700_000)
    assert told.startswith("'xxx")
    assert told.endswith("…")
    assert len(told) < 200
