"""Where root's password comes from, and that it goes nowhere else."""

import io
import sys

import pytest

from minicloud.booting.password import password_hash
from minicloud.errors import UsageError
from minicloud.passwords import hash_password


def is_hash_of(text, password):
    _, _, salt, _ = text.split("$")
    return text == hash_password(password, salt)


def test_it_is_the_first_line_of_a_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("s3cret word\nmore\n")
    assert is_hash_of(password_hash(f"file:{path}"), "s3cret word")


def test_or_of_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("from there\n"))
    assert is_hash_of(password_hash("file:-"), "from there")


def test_on_the_command_line_it_is_refused_with_the_reason():
    with pytest.raises(UsageError, match=r"seen by everybody .*file:FILE") as caught:
        password_hash("password:hunter2")
    assert "hunter2" not in str(caught.value)
    assert is_hash_of(password_hash("password:a:b", may_be_seen=True), "a:b")


@pytest.mark.parametrize("selector", ["hunter2", "file:", "random", "disabled"])
def test_what_leads_to_none_is_not_repeated(selector):
    with pytest.raises(UsageError, match="leads to no password") as caught:
        password_hash(selector)
    assert selector.rstrip(":") not in str(caught.value).replace("file:FILE, or file:-", "")


def test_an_empty_or_missing_file_is_said(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="is empty"):
        password_hash(f"file:{tmp_path / 'empty'}")
    with pytest.raises(UsageError, match="No such file"):
        password_hash(f"file:{tmp_path / 'missing'}")
