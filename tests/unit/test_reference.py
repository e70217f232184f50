"""The reference pages: two programs write to one folder, and leave each other's pages alone."""

import pytest

from minicloud import reference as minicloud_reference
from nbdserve import reference as nbdserve_reference

BOTH = [minicloud_reference, nbdserve_reference]


def run(program, *words):
    with pytest.raises(SystemExit) as caught:
        program.main([str(word) for word in words])
    return caught.value.code


def test_each_writes_its_pages_and_leaves_the_others(tmp_path):
    for program in BOTH * 2:
        assert run(program, tmp_path) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*minicloud_reference.pages(), *nbdserve_reference.pages()}
    for program in BOTH:
        assert run(program, "--check", tmp_path) == 0


def test_a_page_that_nobody_writes_any_more_goes(tmp_path):
    (tmp_path / "minicloud-old.md").touch()
    (tmp_path / "source-old.md").touch()
    for program in BOTH:
        assert run(program, "--check", tmp_path) == 2
        assert run(program, tmp_path) == 0
    assert not list(tmp_path.glob("*-old.md"))


def test_a_page_that_was_edited_is_told(tmp_path, capsys):
    assert run(minicloud_reference, tmp_path) == 0
    (tmp_path / "minicloud-inventory.md").write_text("mine")
    assert run(minicloud_reference, "--check", tmp_path) == 2
    told = capsys.readouterr().err
    assert told == "reference: not what the code says: minicloud-inventory.md; run make docs\n"
