import pytest

from levelhead.studies.study import BadStudy, Study, as_seeds, read_study


def write(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_a_file_becomes_a_study(tmp_path):
    path = write(
        tmp_path,
        'task = "stripes"\nbackbones = ["mlp"]\nrecipes = ["plain", "vat + temperature"]\n'
        'seeds = 2\nsuites = ["clean"]\n',
    )
    assert read_study(path) == Study(
        task="stripes", backbones=("mlp",), recipes=("plain", "vat + temperature"), seeds=(0, 1), suites=("clean",)
    )


def test_a_task_may_have_options_and_the_command_line_has_the_last_word(tmp_path):
    path = write(tmp_path, 'task = { name = "uci/yacht", data_dir = "a", split = 3 }\nrecipes = ["plain"]\nseeds = [4]')
    study = read_study(path, options=(("data_dir", "b"),), seeds=None, recipes=())
    assert study.task == "uci/yacht"
    assert dict(study.options) == {"data_dir": "b", "split": 3}
    assert study.seeds == (4,)


@pytest.mark.parametrize(
    "text, said",
    [
        ('task = "stripes"\nrecipes = ["plain"]\nbackbone = "mlp"', "did you mean 'backbones'"),
        ('recipes = ["plain"]', "task is missing"),
        ('task = "stripes"\nrecipes = [1]', "recipes wants a list of texts"),
        ('task = 3\nrecipes = ["plain"]', "task wants a name"),
        ('task = "stripes"\nrecipes = []', "recipes is empty"),
        ('task = "stripes"\nrecipes = ["plain"]\nengine = "raay"', "engine must be one of"),
        ("task = ", "is no TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, said):
    with pytest.raises(BadStudy, match=said):
        read_study(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadStudy, match=r"absent\.toml: there is no such file"):
        read_study(tmp_path / "absent.toml")


def test_seeds_are_a_number_or_a_list():
    assert as_seeds(None) is None
    assert as_seeds(3) == (0, 1, 2)
    assert as_seeds([5, 2]) == (5, 2)
    for wrong in (0, "3", [0.5]):
        with pytest.raises(BadStudy, match="seeds"):
            as_seeds(wrong)
    with pytest.raises(BadStudy, match="different numbers"):
        Study(task="stripes", recipes=("plain",), seeds=(1, 1))
