"""Names: every one resolves, wrong ones suggest, options are checked."""

import pytest

from levelhead.tasks.load import load_task, names, num_splits, task_names
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task


def test_the_names_that_there_are():
    assert task_names() == sorted(
        [
            *("cifar10", "csv:PATH", "cubic", "digits", "fashion-mini", "fashion-mnist", "folder:PATH", "hf:NAME"),
            *("stripes", "two-moons"),
            *(f"function/{name}" for name in ("abs", "step", "kink", "square", "cubic", "sine", "forrester", "levy")),
            *(f"function/{name}" for name in ("branin", "camel", "styblinski")),
            *(f"uci/{name}" for name in ("boston", "concrete", "energy", "power-plant", "wine", "yacht")),
            *(f"uci-gap/{name}" for name in ("boston", "concrete", "energy", "power-plant", "wine", "yacht")),
        ]
    )
    assert all(names().values())


@pytest.mark.parametrize("name", ["stripes", "two-moons", "two_moons", "cubic", "digits", "fashion-mini"])
def test_tasks_without_files_load_anywhere(name, tmp_path):
    task = load_task(name, data_dir=tmp_path)
    assert isinstance(task, Task)
    assert task.name == name.replace("_", "-")


@pytest.mark.parametrize("name", ["uci/boston", "uci/yacht"])
def test_what_follows_the_slash_is_the_first_argument(name, data_dir):
    task = load_task(name, data_dir=data_dir, split=3)
    assert task.name == name
    assert task.args["split"] == 3


def test_what_follows_the_colon_is_a_path(tmp_path):
    path = tmp_path / "a:b" / "x.csv"
    path.parent.mkdir()
    path.write_text("a,b\n" + "".join(f"{i},{i}\n" for i in range(20)))
    assert load_task(f"csv:{path}").name == "csv:x.csv"


def test_options_reach_the_loader():
    assert load_task("stripes", n=24).digest == stripes(n=24).digest
    with pytest.raises(TypeError, match=r"'stripes' has no option size_, splits; it has n, num_classes, .*seed"):
        load_task("stripes", splits=1, size_=2)


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text("from levelhead.tasks.stripes import stripes\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("my_tasks:stripes", n=24).digest == stripes(n=24).digest
    with pytest.raises(ValueError, match="no attribute 'other'"):
        load_task("my_tasks:other")
    with pytest.raises(ValueError, match="No module named 'no_such_module'"):
        load_task("no_such_module:other")


@pytest.mark.parametrize(
    "wrong, nearest",
    [
        ("strips", "stripes"),
        ("fashion-mnst", "fashion-mnist"),
        ("uci/yatch", "uci/yacht"),
        ("uci", "uci/"),
        ("stripes:3", "stripes"),
        ("carve", "there are|did you mean"),
        ("", "there are cifar10"),
        ("/data/x.csv", "csv:PATH"),
    ],
)
def test_wrong_names_suggest_right_ones(wrong, nearest):
    with pytest.raises(ValueError, match=rf"no task is called '{wrong}'.*({nearest})"):
        load_task(wrong)


def test_published_splits_are_counted():
    assert num_splits("uci/yacht") == 20
    assert num_splits("fashion-mini") == num_splits("my_tasks:stripes") == 1
