"""How a package is built: its modules, what each imports, and where that stands on its floors."""

import ast
from pathlib import Path

__all__ = ["SOURCE", "House", "check_stays_readable", "name_of", "part_of"]

SOURCE = Path(__file__).parents[2] / "src"


class House:
    """One package.

    Args:
        package: its name.
        floors: names of its parts, from the ground up; a package stands for all its modules.
    """

    def __init__(self, package, floors):
        self.package = package
        self.floors = floors

    def modules(self):
        """List the paths of its modules."""
        return sorted(SOURCE.glob(f"{self.package}/**/*.py"))

    def imports(self, path):
        """Every module a file imports, also inside functions, and when `from` names it last."""
        known = {name_of(module) for module in SOURCE.glob("**/*.py")}
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import hides where it leads"
                below = {f"{node.module}.{alias.name}" for alias in node.names} & known
                found |= below or {node.module}
        return found

    def floor_of(self, part):
        """Number of the floor a part stands on."""
        for number, floor in enumerate(self.floors):
            if part in floor:
                return number
        raise AssertionError(f"{part} stands on no floor: place it in FLOORS")

    def parts(self):
        """Names of all parts there are."""
        return {part_of(name_of(path)) for path in self.modules()}

    def check_imports_nothing_from_above(self, path):
        """Fail where a module imports from a floor above its own."""
        here = part_of(name_of(path))
        for name in self.imports(path):
            if name.startswith(f"{self.package}."):
                above = self.floor_of(part_of(name)) > self.floor_of(here)
                assert not above, f"{name} is above {name_of(path)}"

    def check_no_import_goes_in_a_circle(self):
        """Fail where modules import each other."""
        graph = {name_of(path): self.imports(path) for path in self.modules()}
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


def name_of(path):
    """The dotted name of a module."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(name):
    """The part of the house a module belongs to: `nbdserve.server.uri` is in `server`."""
    return [*name.split("."), "__init__"][1]


def check_stays_readable(path):
    """Fail where a file or a function has grown too long."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
