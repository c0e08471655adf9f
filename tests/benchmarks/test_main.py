import inspect
import re
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as program
from benchmarks.harness import Contest, Rival


@pytest.fixture
def small(monkeypatch):
    """A benchmark that takes no time, in place of those of the folder."""
    asked = []

    def contests(*, quick):
        asked.append(quick)
        yield Contest(lambda: sum(range(1000)), {"plain": Rival(lambda: sum(range(2000)))})

    monkeypatch.setattr(program, "names", lambda: ["small"])
    monkeypatch.setattr(program, "load", lambda name: SimpleNamespace(contests=contests, __doc__="Sums.\n\nMore."))
    return asked


def test_every_file_of_the_folder_is_a_benchmark_that_says_what_it_is():
    names = program.names()
    assert "deep_ensemble" in names
    assert not {"harness", "__main__"} & set(names)
    for name in names:
        module = program.load(name)
        assert list(inspect.signature(module.contests).parameters) == ["quick"], name
        assert inspect.getdoc(module), name


def test_every_benchmark_has_its_place_on_the_page():
    page = program.PAGE.read_text(encoding="utf-8")
    for name in program.names():
        assert page.count(f"<!-- begin {name} -->") == page.count(f"<!-- end {name} -->") == 1, name


def test_without_a_name_it_lists(capsys):
    assert program.main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == program.names()


def test_it_prints_a_table_and_then_the_ratios(small, capsys):
    assert program.main(["small", "--quick"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert small == [True]
    assert re.fullmatch(r"ratio small/plain \d+\.\d{4}", lines[-1])
    assert any(line.startswith("| plain |") for line in lines)
    assert "2 rounds (--quick" in lines[0]


def test_all_runs_all_with_five_rounds(small, capsys):
    assert program.main(["--all"]) == 0
    assert small == [False]
    assert ", 5 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["smal"], "no benchmark of that name; there are small"),
        (["small", "--quick", "--write"], "leave out --quick"),
        (["small", "--rounds", "0"], "at least 1"),
    ],
)
def test_a_wrong_command_says_what_is_right(small, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_write_puts_the_table_between_the_markers_and_again(small, capsys, monkeypatch, tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("# Before\n<!-- begin small -->\nold\n<!-- end small -->\nafter\n")
    monkeypatch.setattr(program, "PAGE", page)
    for _ in range(2):
        program.main(["small", "--write"])
        text = page.read_text()
        assert text.startswith("# Before\n<!-- begin small -->\n`python -m benchmarks small`, 5 rounds")
        assert text.endswith("<!-- end small -->\nafter\n")
        assert "old" not in text
        assert text.count("| plain |") == 1


def test_a_page_without_markers_is_an_error(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has them 0 times"):
        program.write(page, "small", "text\n")
