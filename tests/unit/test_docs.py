"""What the pages say holds: links lead somewhere, commands and configurations are understood."""

import re
import shlex
from pathlib import Path

import pytest

from minicloud import cli as minicloud_cli
from minicloud.images.inspecting import check_layers
from minicloud.inventory.reading import read_inventory
from nbdserve import cli, nbdctl
from nbdserve.build import resolve
from nbdserve.config import read_configuration
from nbdserve.helppages import element_page
from nbdserve.nbdctl.image import image_spec
from nbdserve.spec import ExportSpec, parse_layer, parse_source

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INVENTORY = re.compile(r"^\[(nodes|nbd|defaults|templates)\b", re.MULTILINE)
INDENTED = re.compile(r"^ {4}(nbd(?:serve|ctl) .*)$", re.MULTILINE)  # examples in help pages


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(*kinds):
    """Give every fenced block of some kinds, with its page."""
    return [
        (page, text)
        for page in PAGES
        for kind, text in BLOCK.findall(page.read_text())
        if kind in kinds
    ]


def commands():
    """Give every command line of ours in a block or an example, its comment cut off."""
    found = []
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text())
        found += [(page, line) for line in INDENTED.findall(prose)]
    for page, text in blocks("sh", ""):
        joined = text.replace("\\\n", " ")
        if "usage" not in joined:
            lines = re.findall(r"^(?:nbdserve|nbdctl|minicloud) .*$", joined, re.MULTILINE)
            found += [(page, line) for line in lines]
    return [(name_of(page), line) for page, line in found if "…" not in line and "[" not in line]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_is_understood(page, line):
    program, *words = shlex.split(line.partition(" > ")[0], comments=True)
    if program == "minicloud":
        minicloud_cli.parser(*minicloud_cli.COMMANDS).parse_args(words)
        return
    if program == "nbdctl":
        arguments = nbdctl.parser().parse_args(words)
        named = {"inspect": slice(None), "pack": slice(-1)}.get(arguments.command)
        if named is not None:
            resolve(image_spec(arguments.words[named], arguments.layer))
        return
    arguments = cli.parser().parse_intermixed_args(words)
    if arguments.version or arguments.config is not None:
        return
    if arguments.control is not None and not arguments.words:
        return
    if arguments.help is not None:
        element_page(arguments.help)
        return
    layers = tuple(map(parse_layer, arguments.layer))
    resolve(ExportSpec(source=parse_source(arguments.words), layers=layers))


@pytest.mark.parametrize(("page", "text"), blocks("toml"), ids=lambda part: None)
def test_a_configuration_is_understood(page, text, tmp_path):
    if "[[export]]" in text:
        file = tmp_path / "nbdserve.toml"
        file.write_text(text)
        for export in read_configuration(file).exports:
            resolve(export)
    elif INVENTORY.search(text):
        file = tmp_path / "minicloud.toml"
        file.write_text(text)
        for template in read_inventory(file).templates.values():
            check_layers(template)
    else:
        assert "[project.entry-points" in text


def test_there_are_commands_and_configurations_to_look_at():
    assert len(commands()) > 25
    assert any("[[export]]" in text for _, text in blocks("toml"))
    assert any(INVENTORY.search(text) for _, text in blocks("toml"))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "how-to").glob("*.md")), ids=name_of)
def test_a_how_to_is_listed(page):
    if page.name != "README.md":
        assert f"]({page.name})" in (page.parent / "README.md").read_text()


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=name_of)
def test_a_decision_is_listed(page):
    assert f"]({page.name})" in (page.parent / "README.md").read_text()


def test_the_readme_names_every_source_and_layer():
    from nbdserve.registry import builtin_layers, builtin_sources

    readme = (ROOT / "README.md").read_text()
    for name in (*builtin_sources(), *builtin_layers()):
        assert f"`{name}`" in readme, name
