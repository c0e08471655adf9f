import pytest

from levelhead.cli.options import read_changes, read_seeds, split_commas, task_options


def test_commas_in_brackets_are_no_separators():
    assert split_commas(["clean,shift(severities=(1, 5), limit=9)", "ood", ""]) == (
        "clean",
        "shift(severities=(1, 5), limit=9)",
        "ood",
    )
    assert split_commas(None) == ()


def test_seeds_are_a_number_or_a_list():
    assert read_seeds(None) is None
    assert read_seeds("3") == (0, 1, 2)
    assert read_seeds("0,4") == (0, 4)
    assert read_seeds("4,") == (4,)
    with pytest.raises(ValueError, match="--seeds wants"):
        read_seeds("three")


def test_changes_are_values_or_text():
    given = ["sampler.epochs=5", "a.b=(1, 2)", "sampler.schedule=step", "x=a=b"]
    assert read_changes(given) == (
        ("sampler.epochs", 5),
        ("a.b", (1, 2)),
        ("sampler.schedule", "step"),
        ("x", "a=b"),
    )
    with pytest.raises(ValueError, match="PATH=VALUE"):
        read_changes(["=3"])


def test_only_what_was_given_is_handed_on(tmp_path):
    assert task_options(None) == ()
    assert task_options(tmp_path) == (("data_dir", str(tmp_path)),)
