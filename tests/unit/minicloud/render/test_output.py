import io
import json

import pytest

from minicloud.model.view import Lines, Outcome, Table
from minicloud.render.output import print_outcome, printable

GUESTS = Table(
    ("name", "memory"), [("web1", "1.0G"), ("a-longer-name", "16.0G")], frozenset({"memory"})
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(outcome, out, *, as_json=False):
    print_outcome(outcome, as_json=as_json, out=out)
    return out.getvalue()


def test_a_pipe_gets_a_line_a_row_with_columns_apart():
    assert printed(Outcome({}, [GUESTS]), io.StringIO()) == (
        "NAME           MEMORY\nweb1             1.0G\na-longer-name   16.0G\n"
    )


def test_a_pipe_never_loses_the_end_of_a_cell():
    wide = Table(("image",), [("x" * 500,)])
    assert "x" * 500 in printed(Outcome({}, [wide]), io.StringIO())


def test_a_table_without_rows_is_its_heading():
    assert printed(Outcome({}, [Table(("name",), [])]), io.StringIO()) == "NAME\n"


def test_a_terminal_gets_the_same_cells():
    text = printed(Outcome({}, [GUESTS]), Terminal())
    assert all(word in text for word in ("name", "web1", "16.0G"))


def test_json_is_the_document_alone():
    outcome = Outcome({"guests": []}, [GUESTS], errors=("ham1: off",))
    assert json.loads(printed(outcome, io.StringIO(), as_json=True)) == {"guests": []}


def test_errors_go_to_standard_error(capsys):
    print_outcome(Outcome({}, [Lines(("one",))], errors=("ham1: off",)), as_json=False)
    assert capsys.readouterr() == ("one\n", "minicloud: ham1: off\n")


def test_a_guest_cannot_steer_the_terminal():
    evil = Table(("name",), [("\x1b[2Jgone\nROOT",)])
    for out in (io.StringIO(), Terminal()):
        text = printed(Outcome({}, [evil]), out)
        assert "\x1b[2J" not in text
        assert "?[2Jgone ROOT" in text


def test_what_looks_like_markup_is_printed_as_it_is():
    assert "[red]x[/red]" in printed(Outcome({}, [Lines(("[red]x[/red]",))]), Terminal())


def test_an_empty_cell_is_a_dash():
    assert printed(Outcome({}, [Table(("a",), [("",)])]), io.StringIO()) == "A\n-\n"


def test_printable_leaves_letters_of_all_languages():
    assert printable("Zürich 東京\t") == "Zürich 東京?"


@pytest.mark.parametrize(("columns", "is_whole"), [("40", True), ("80", False), ("200", True)])
def test_a_narrow_terminal_does_not_cut_short_cells_into_slivers(monkeypatch, columns, is_whole):
    monkeypatch.setenv("COLUMNS", columns)
    names = ("guest", "state", "node", "memory", "image")
    cells = ("a-guest", "running", "node-one", "128.0M", "http://one.example/" + "x" * 60)
    text = printed(Outcome({}, [Table(names, [cells])]), Terminal())
    assert all(cell in text for cell in cells[:4])
    assert (cells[4] in text) == is_whole
