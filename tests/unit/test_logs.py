"""Log lines: for a person, for the journal, for a machine."""

import io
import json
import logging
import os
import sys

import pytest

from nbdserve.logs import configure


@pytest.fixture
def written(monkeypatch):
    """Configure logging to a buffer; returns a function that logs and reads it back."""
    root = logging.getLogger("nbdserve")
    before = root.handlers[:], root.level, root.propagate

    def write(level, message, *args, **settings):
        buffer = io.StringIO()
        monkeypatch.setattr(sys, "stderr", buffer)
        configure(**{"verbose": False, "form": "text", **settings})
        logging.getLogger("nbdserve.test").log(level, message, *args)
        return buffer.getvalue()

    yield write
    root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]


def test_a_person_gets_name_and_level(written):
    assert written(logging.WARNING, "disk full path=%s", "/x") == (
        "nbdserve: warning: disk full path=/x\n"
    )


def test_debug_comes_with_verbose_only(written):
    assert written(logging.DEBUG, "x") == ""
    assert written(logging.DEBUG, "x", verbose=True) == "nbdserve: debug: x\n"


def test_info_goes_with_quiet(written):
    assert written(logging.INFO, "x", quiet=True) == ""


def test_a_machine_gets_an_object_a_line(written):
    told = json.loads(written(logging.INFO, "a\nb", form="json"))
    assert (told["level"], told["logger"], told["message"]) == ("info", "nbdserve.test", "a\nb")
    assert told["time"].endswith("Z")


def test_the_journal_gets_priorities(tmp_path, monkeypatch, written):
    with (tmp_path / "journal").open("w+") as stream:
        info = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        configure(verbose=False, form="text")
        logging.getLogger("nbdserve.test").error("broken")
        logging.getLogger("nbdserve.test").info("fine")
        stream.seek(0)
        assert stream.read() == "<3>broken\n<6>fine\n"
