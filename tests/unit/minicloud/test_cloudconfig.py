import email
import json

import pytest

from minicloud.cloudconfig import CloudOptions, user_data
from minicloud.errors import UsageError


def config_of(data):
    first, rest = data.decode().split("\n", 1)
    assert first == "#cloud-config"
    return json.loads(rest)


def test_what_was_asked_for_becomes_cloud_config():
    options = CloudOptions(
        ssh_keys=("ssh-ed25519 AAAA anna",),
        root_password="$6$x$y",
        packages=("nginx", "curl"),
        commands=("echo 'hi' > /hi",),
    )
    assert config_of(user_data(options)) == {
        "ssh_authorized_keys": ["ssh-ed25519 AAAA anna"],
        "disable_root": False,
        "chpasswd": {
            "expire": False,
            "users": [{"name": "root", "password": "$6$x$y", "type": "hash"}],
        },
        "package_update": True,
        "packages": ["nginx", "curl"],
        "runcmd": ["echo 'hi' > /hi"],
    }


def test_nothing_asked_for_leaves_root_and_packages_alone():
    assert config_of(user_data(CloudOptions())) == {}
    assert config_of(user_data(CloudOptions(commands=("true",)))) == {"runcmd": ["true"]}


def test_a_file_alone_is_left_as_it_is():
    own = b"\x1f\x8b not even text"
    assert user_data(CloudOptions(), own) is own


@pytest.mark.parametrize("own", ["#!/bin/sh\necho äöü\n", "#cloud-config\npackages: [x]\n"])
def test_a_file_stands_beside_what_was_asked_for(own):
    archive = email.message_from_bytes(user_data(CloudOptions(packages=("nginx",)), own.encode()))
    made, theirs = archive.get_payload()
    assert archive.get_content_type() == "multipart/mixed"
    assert made.get_content_type() == "text/cloud-config"
    assert config_of(made.get_payload(decode=True))["packages"] == ["nginx"]
    assert theirs.get_content_type() == "text/plain"
    assert theirs.get_payload(decode=True).decode() == own


def test_a_file_that_is_no_text_goes_with_nothing_else():
    with pytest.raises(UsageError, match="user-data that is no text"):
        user_data(CloudOptions(packages=("nginx",)), b"\x1f\x8b\xff")
