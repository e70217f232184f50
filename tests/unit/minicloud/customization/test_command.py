"""The commands file, as virt-customize reads it."""

from pathlib import Path

import pytest

from minicloud.customization.command import Command, Staged, bundle
from minicloud.errors import UsageError

GOLDEN = Path(__file__).parent / "golden"


def test_all_of_it_is_written_in_order_with_the_files_it_names():
    made = bundle(
        [
            Command("hostname", "web1"),
            Command("update"),
            Command("root-password", "locked:file:", b"hunter2\n"),
            Command("upload", file=Path("/srv/me/site.conf"), after=":/etc/site.conf"),
            Command("write", "/etc/motd:one\ntwo \\ three\\\nfour\n\nsix"),
            Command("ssh-inject", "root:file:", b"ssh-ed25519 AAAA me\n"),
            Command("edit", "/etc/fstab:s/^#  /x/"),
            Command("copy-in", file=Path("/srv/me/site"), after=":/var/www"),
            Command("run-command", "  two blanks in front, two behind  "),
            Command("no-logfile"),
        ]
    )
    assert made.text == GOLDEN.joinpath("commands").read_text()
    assert made.staged == (
        Staged("secrets/0", b"hunter2\n"),
        Staged("files/1/site.conf", Path("/srv/me/site.conf")),
        Staged("secrets/2", b"ssh-ed25519 AAAA me\n"),
        Staged("files/3/site", Path("/srv/me/site")),
    )


def lines_split(text):
    """Split as virt-customize does (libguestfs-common, std_utils.ml): the other side's rules."""
    lines, buffer, start = [], "", 0
    while True:
        end = text.find("\n", start)
        if end < 0:
            return [*lines, buffer + text[start:]]
        if end > 0 and text[end - 1] == "\\":
            buffer += text[start : end - 1] + "\n"
        else:
            lines.append(buffer + text[start:end])
            buffer = ""
        start = end + 1


@pytest.mark.parametrize(
    "value", ["a", "a\nb", "a\\\nb", "\\\\x", "a\n\nb", "\n", "a\n", "a\\\n\\\n\nb", " a ", "a\tb"]
)
def test_a_value_comes_out_there_as_it_went_in(value):
    text = bundle([Command("write", f"/f:{value}"), Command("update")]).text
    assert lines_split(text) == [f"write /f:{value}", "update", ""]


@pytest.mark.parametrize("value", ["a\\", "a\n\\"])
def test_a_value_that_cannot_be_written_is_refused(value):
    with pytest.raises(UsageError, match="--write: its value ends in a backslash"):
        bundle([Command("write", value)])
