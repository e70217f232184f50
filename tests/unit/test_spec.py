"""Specs: layers and sources as written on the command line."""

import pytest

from nbdserve.errors import ConfigError
from nbdserve.spec import ElementSpec, parse_layer, parse_source


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("xz", ElementSpec("xz")),
        ("slice:offset=1M", ElementSpec("slice", (("offset", "1M"),))),
        ("x:a=1,b=2", ElementSpec("x", (("a", "1"), ("b", "2")))),
        (r"x:a=1\,2,b=", ElementSpec("x", (("a", "1,2"), ("b", "")))),
        ("x:a=b=c:d", ElementSpec("x", (("a", "b=c:d"),))),
    ],
)
def test_layers(text, spec):
    assert parse_layer(text) == spec


@pytest.mark.parametrize("text", ["", "X", "xz:", "xz:a", "xz:a=1,b", "x z", ":a=1"])
def test_what_is_no_layer(text):
    with pytest.raises(ConfigError):
        parse_layer(text)


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        (["null"], ElementSpec("null")),
        (["null", "1M"], ElementSpec("null", (("", "1M"),))),
        (["file", "path=a=b"], ElementSpec("file", (("path", "a=b"),))),
        (["file", "./a=b"], ElementSpec("file", (("", "./a=b"),))),
        (["http", "http://h/p?a=b&c=d"], ElementSpec("http", (("", "http://h/p?a=b&c=d"),))),
        (["http", "u", "timeout=3s"], ElementSpec("http", (("", "u"), ("timeout", "3s")))),
    ],
)
def test_sources(words, spec):
    assert parse_source(words) == spec


@pytest.mark.parametrize("words", [[], ["File"], ["disk.img"], ["null", "1", "2"]])
def test_what_is_no_source(words):
    with pytest.raises(ConfigError):
        parse_source(words)
