"""The floors of minicloud, and who may talk to ssh and to libvirt."""

import pytest

from house import House, check_stays_readable, name_of, part_of

FLOORS = [
    {"__init__", "errors", "model"},
    {"cloudconfig", "daemons", "deadline", "passwords", "tasks"},
    {"resolving"},
    {"domain", "facts", "inventory", "moving", "placement", "seed", "wakeup"},
    {"completion", "images"},
    {"ssh"},
    {"hypervisor"},
    {"cluster"},
    {"storage"},
    {"collecting"},
    {"booting"},
    {"customization"},
    {"doctor"},
    {"commands", "render"},
    {"run"},
    {"cli"},
    {"__main__", "reference"},
]
ALONE = {"asyncssh": "ssh", "libvirt": "hypervisor", "rich": "render", "pycdlib": "seed"}

HOUSE = House("minicloud", FLOORS)
MODULES = HOUSE.modules()


def test_every_part_stands_on_exactly_one_floor():
    placed = [part for floor in FLOORS for part in sorted(floor)]
    assert sorted(placed) == sorted(HOUSE.parts())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_nothing_from_above(path):
    HOUSE.check_imports_nothing_from_above(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_one_part_alone_talks_to_each_library(path):
    for name in HOUSE.imports(path):
        owner = ALONE.get(name.split(".")[0])
        assert owner in {None, part_of(name_of(path))}, f"{name} is {owner}'s alone"


def test_no_import_goes_in_a_circle():
    HOUSE.check_no_import_goes_in_a_circle()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_readable(path):
    check_stays_readable(path)
