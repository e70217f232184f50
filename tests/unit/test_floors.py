"""The floors of the design: a module imports from its own floor or from one below, never above."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

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
        "formats",
        "params",
        "protocol",
        "sequences",
        "stats",
        "threads",
        "unbroken",
    },
    {"cachestore", "logs", "overlay", "settings", "spec", "xzengine"},
    {"layers", "sources"},
    {"registry"},
    {"build", "chainplan", "testing"},
    {"config", "helppages", "inspection", "packing"},
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


def modules():
    return sorted(SOURCE.glob("nbdserve/**/*.py"))


def name_of(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(name):
    """The part of the house a module belongs to: `nbdserve.server.uri` is in `server`."""
    return [*name.split("."), "__init__"][1]


def imports(path):
    """Every module a file imports, also inside functions, and when `from` names it last."""
    known = {name_of(module) for module in modules()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            below = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= below or {node.module}
    return found


def test_an_import_is_seen_wherever_the_module_is_named(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text("import struct\ndef f():\n    from nbdserve import cli, errors\n")
    assert imports(path) == {"struct", "nbdserve.cli", "nbdserve.errors"}


def test_every_part_stands_on_exactly_one_floor():
    placed = [part for floor in FLOORS for part in sorted(floor)]
    there = {part_of(name_of(path)) for path in modules()}
    assert sorted(placed) == sorted(there)


def floor_of(part):
    for number, floor in enumerate(FLOORS):
        if part in floor:
            return number
    raise AssertionError(f"{part} stands on no floor: place it in FLOORS")


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_nothing_from_above(path):
    here = part_of(name_of(path))
    for name in imports(path):
        if not name.startswith("nbdserve."):
            continue
        there = part_of(name)
        assert floor_of(there) <= floor_of(here), f"{name} is above {name_of(path)}"
        if here in APART | {"server"} and there in APART:
            assert here == there, f"{name_of(path)} knows {name}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_tests_import_the_testing_package(path):
    if part_of(name_of(path)) != "testing":
        assert not any(name.startswith("nbdserve.testing") for name in imports(path))


@pytest.mark.parametrize(
    "path", [*SOURCE.glob("nbdserve/protocol/*.py"), *SOURCE.glob("nbdserve/control/*.py")],
    ids=name_of,
)  # fmt: skip
def test_the_codec_does_no_io(path):
    for name in imports(path):
        allowed = name.split(".")[0] in CODEC_STDLIB or name.startswith(tuple(CODEC))
        assert allowed, f"{name_of(path)} imports {name}"


def test_no_import_goes_in_a_circle():
    graph = {name_of(path): imports(path) for path in modules()}
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, " -> ".join([*under_way, name])
        if name in done or name not in graph:
            return
        under_way.append(name)
        for imported in sorted(graph[name]):
            visit(imported)
        done.add(under_way.pop())

    for name in graph:
        visit(name)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_files_and_functions_stay_readable(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
