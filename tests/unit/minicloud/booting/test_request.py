"""What `boot` is asked for is judged before anything is touched."""

import dataclasses

import pytest

from bootfacts import request
from guestplans import TEMPLATE
from minicloud.booting.request import Event, Wait, check_request, parse_wait
from minicloud.errors import UsageError

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("ssh", Wait(Event.SSH)),
        ("console", Wait(Event.CONSOLE)),
        ("console:login: ", Wait(Event.CONSOLE, "login: ")),
        ("90s", Wait(Event.SSH, seconds=90)),
        ("2m", Wait(Event.SSH, seconds=120)),
    ],
)
def test_what_a_guest_may_be_waited_for(text, wait):
    assert parse_wait(text) == wait


@pytest.mark.parametrize("text", ["", "web1", "console:", "ssh:x", "0s"])
def test_what_it_may_not(text):
    with pytest.raises(ValueError, match="ssh, console"):
        parse_wait(text)


def test_what_the_template_allows_passes():
    assert check_request(request()) == request()


@pytest.mark.parametrize(
    ("template", "fields", "words"),
    [
        ({"minimum_size": 10 * GIB}, {"size": GIB}, "--size 1.0G is too little for .* 10.0G"),
        ({"minimum_size": 10 * GIB, "size": GIB}, {}, "--size 1.0G is too little"),
        ({"minimum_memory": 2 * GIB}, {}, "--memory 1.0G is too little for .* 2.0G"),
        ({}, {"vcpus": 0}, "0 vCPUs"),
        ({}, {"network": "vmbr0"}, "'vmbr0' is no network"),
        ({}, {"hostname": "a.b_c"}, "'b_c' cannot be"),
    ],
)
def test_what_it_does_not_allow_is_refused(template, fields, words):
    asked = request(template=dataclasses.replace(TEMPLATE, **template), **fields)
    with pytest.raises(UsageError, match=words):
        check_request(asked)
