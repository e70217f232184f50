"""The floors of the design: a module imports from its own floor or from one below, never above."""

import pytest

from house import SOURCE, House, check_stays_readable, name_of, part_of

# From the ground up; a package stands for all its modules. Parts of one floor may use each other
# where the floor is marked so, but for sources and layers, which never do.
FLOORS = [
    {"__init__", "buffers", "errors", "extents", "ranges"},
    {
        "absent",
        "blockcache",
        "control",
        "datafile",
        "hotwrites",
        "device",
        "iouring",
        "pagecache",
        "formats",
        "params",
        "protocol",
        "sequences",
        "stats",
        "threads",
        "tlssocket",
        "unbroken",
    },
    {"cachestore", "logs", "overlay", "settings", "spec", "xzengine"},
    {"layers", "sources"},
    {"registry"},
    {"build", "chainplan", "testing"},
    {"config", "helppages", "inspection", "packing", "tlsoptions"},
    {"server"},
    {"cli"},
    {"nbdctl"},
    {"__main__", "reference"},
]
APART = {"sources", "layers"}
CODEC = {"nbdserve.protocol", "nbdserve.control", "nbdserve.errors", "nbdserve.extents"}
CODEC_STDLIB = {
    "struct", "enum", "errno", "dataclasses", "typing", "collections", "functools", "itertools",
    "json",
}  # fmt: skip


HOUSE = House("nbdserve", FLOORS)
MODULES = HOUSE.modules()


def test_an_import_is_seen_wherever_the_module_is_named(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text("import struct\ndef f():\n    from nbdserve import cli, errors\n")
    assert HOUSE.imports(path) == {"struct", "nbdserve.cli", "nbdserve.errors"}


def test_every_part_stands_on_exactly_one_floor():
    placed = [part for floor in FLOORS for part in sorted(floor)]
    assert sorted(placed) == sorted(HOUSE.parts())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_nothing_from_above(path):
    HOUSE.check_imports_nothing_from_above(path)
    here = part_of(name_of(path))
    for name in HOUSE.imports(path):
        there = part_of(name)
        if name.startswith("nbdserve.") and here in APART | {"server"} and there in APART:
            assert here == there, f"{name_of(path)} knows {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nbdserve_knows_nothing_of_minicloud(path):
    assert not any(name.startswith("minicloud") for name in HOUSE.imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_tests_import_the_testing_package(path):
    if part_of(name_of(path)) != "testing":
        assert not any(name.startswith("nbdserve.testing") for name in HOUSE.imports(path))


@pytest.mark.parametrize(
    "path", [*SOURCE.glob("nbdserve/protocol/*.py"), *SOURCE.glob("nbdserve/control/*.py")],
    ids=name_of,
)  # fmt: skip
def test_the_codec_does_no_io(path):
    for name in HOUSE.imports(path):
        allowed = name.split(".")[0] in CODEC_STDLIB or name.startswith(tuple(CODEC))
        assert allowed, f"{name_of(path)} imports {name}"


def test_no_import_goes_in_a_circle():
    HOUSE.check_no_import_goes_in_a_circle()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_readable(path):
    check_stays_readable(path)
