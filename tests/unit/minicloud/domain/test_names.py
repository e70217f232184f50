import pytest

from minicloud.domain.names import (
    check_name,
    guest_export_name,
    guest_of,
    mac_of,
    overlay_path,
    seed_export_name,
    split_target,
)
from minicloud.errors import UsageError


@pytest.mark.parametrize("name", ["a", "web-1", "A1", "x" * 63])
def test_a_host_name_is_a_guests_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a.b", "../a", "a/b", "a b", "x" * 64, "ä", "a\n"]
)
def test_what_is_no_host_name_is_refused(name):
    with pytest.raises(UsageError, match="cannot be a guest's name"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "target"), [("web1", (None, "web1")), ("ham0:web1", ("ham0", "web1"))]
)
def test_a_target_names_a_node_or_none(text, target):
    assert split_target(text, ["ham0", "ham1"]) == target


def test_a_node_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(UsageError) as caught:
        split_target("ham7:web1", ["ham0", "ham1"])
    assert str(caught.value) == "there is no node 'ham7'; did you mean 'ham1'? (known: ham0, ham1)"


@pytest.mark.parametrize(
    "thing",
    [guest_export_name("web1"), seed_export_name("web1"), overlay_path("/var/lib/x/", "web1")],
)
def test_a_guests_things_are_known_by_their_names(thing):
    assert guest_of(thing) == "web1"


@pytest.mark.parametrize(
    "thing", ["debian", "guest/", "guest/a/b", "/var/lib/x/web1.img", "guest/-"]
)
def test_other_things_are_nobodys(thing):
    assert guest_of(thing) is None


def test_an_overlay_lies_in_its_folder():
    assert overlay_path("/var/lib/overlays/", "web1") == "/var/lib/overlays/web1.cow"


def test_a_name_has_one_address_of_qemus():
    assert mac_of("web1") == "52:54:00:65:9a:7f"
    assert mac_of("web2") != mac_of("web1")
