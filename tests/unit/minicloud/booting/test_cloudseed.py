"""When a guest gets a seed, and what stands in it."""

import subprocess

import pytest

from minicloud.booting.cloudseed import Wishes, cloud_seed
from minicloud.errors import UsageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"


def made(wishes, template_data=None):
    return cloud_seed(wishes, template_data, name="web1", uuid="7")


def test_nobody_asked_for_one():
    assert made(Wishes()) is None


def test_the_operators_user_data_stands_in_for_the_templates(tmp_path):
    (tmp_path / "ours").write_text("#!/bin/sh\necho ours\n")
    (tmp_path / "theirs").write_text("#!/bin/sh\necho theirs\n")
    assert b"echo theirs" in made(Wishes(), tmp_path / "theirs")
    seed = made(Wishes(user_data=tmp_path / "ours"), tmp_path / "theirs")
    assert b"echo ours" in seed
    assert b"echo theirs" not in seed


def test_keys_and_a_hostname_alone_make_one(tmp_path):
    (tmp_path / "keys").write_text(f"# mine\n{KEY}\n\n")
    assert KEY.encode() in made(Wishes(key_files=[tmp_path / "keys"]))
    assert b'"local-hostname": "www"' in made(Wishes(hostname="www"))


def test_a_private_key_never_leaves(tmp_path):
    path = tmp_path / "id"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60
    )
    with pytest.raises(UsageError, match=r"private key; name its public one, .*id\.pub"):
        made(Wishes(key_files=[path]))
    assert made(Wishes(key_files=[path.with_suffix(".pub")])) is not None


def test_files_that_are_not_there_or_hold_no_keys_are_said(tmp_path):
    (tmp_path / "words").write_text("hello\n")
    with pytest.raises(UsageError, match="holds no public keys"):
        made(Wishes(key_files=[tmp_path / "words"]))
    with pytest.raises(UsageError, match=r"cannot read the user-data in .*No such file"):
        made(Wishes(user_data=tmp_path / "missing"))
