"""Tables: numbers are features, words in the target are classes, anything else says where it stands."""

import pytest
import torch

from levelhead.likelihood import Categorical, Gaussian
from levelhead.tasks.csv import csv


def table(path, lines, header="length,width,kind"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def flowers(tmp_path):
    return table(tmp_path / "flowers.csv", [f"{i},{i * i / 10}, {'rose' if i % 2 else 'lily'}" for i in range(40)])


def test_words_are_classes(flowers):
    task = csv(flowers)
    assert task.name == "csv:flowers.csv"
    assert task.likelihood == Categorical(2)
    assert task.classes == ("lily", "rose")
    assert task.columns == ("length", "width")
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [24, 4, 4, 8]
    for split in (task.train, task.val, task.calibration, task.test):
        assert torch.equal(split.x[:, 0] % 2, split.y.float())
        assert torch.allclose(split.x[:, 1], split.x[:, 0] ** 2 / 10)


def test_numbers_are_targets(flowers, tmp_path):
    path = table(tmp_path / "area.csv", [f"{i},{i + 0.5},{2 * i}" for i in range(30)], header="a,b,area")
    task = csv(path)
    assert isinstance(task.likelihood, Gaussian)
    assert torch.equal(task.train.y[:, 0], 2 * task.train.x[:, 0])
    by_name = csv(path, target="a")
    assert torch.equal(by_name.train.x[:, 1], 2 * by_name.train.y[:, 0])
    assert by_name.receipt()["args"]["target"] == "a"


def test_numbers_are_classes_where_asked_for(tmp_path):
    path = table(tmp_path / "quality.csv", [f"{i / 3},{(5, 10, 6)[i % 3]}" for i in range(30)], header="a,quality")
    assert csv(path, classify=True).classes == ("5", "6", "10")
    assert csv(path).classes == ()


def test_tabs_and_marks_of_spreadsheets(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("a\tb\n" + "".join(f"{i}\t{i}\n" for i in range(20)), encoding="utf-8-sig")
    assert len(csv(path).train) == 12


@pytest.mark.parametrize(
    "lines, options, says",
    [
        (["1,2,a", "1,,b"], {}, "row 2 of column 'width' is ''; wants a number"),
        (["1,nan,a"], {}, "row 1 of column 'width' is 'nan'"),
        (["x,2,a"], {}, "row 1 of column 'length' is 'x'"),
        (["1,2,a", "1,2"], {}, "row 2 has 2 cells, the header 3"),
        (["1,2,a"], {"target": "colour"}, "'colour' is no column; there are length, width, kind"),
        (["1,2,a"], {"classify": False}, "row 1 of column 'kind' is 'a'"),
        ([], {}, "at least one row"),
    ],
)
def test_refuses_with_the_place(tmp_path, lines, options, says):
    with pytest.raises(ValueError, match=says):
        csv(table(tmp_path / "bad.csv", lines), **options)


def test_refuses_two_columns_of_one_name(tmp_path):
    with pytest.raises(ValueError, match="same name"):
        csv(table(tmp_path / "bad.csv", ["1,2"], header="a,a"))
    with pytest.raises(ValueError, match="no column beside"):
        csv(table(tmp_path / "bad.csv", ["1", "2"], header="a"))
