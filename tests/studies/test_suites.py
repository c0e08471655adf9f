import dataclasses

import pytest
from studies.tiny import tiny

from levelhead.studies.study import BadStudy
from levelhead.studies.suites import merged, study_suites, suite_of


def test_by_default_all_that_suit_the_task():
    assert study_suites(None, tiny()) == ("clean", "shift", "ood", "cost")
    assert study_suites(None, dataclasses.replace(tiny(), ood={})) == ("clean", "shift", "cost")


def test_suites_have_one_spelling():
    assert study_suites(("shift(limit=5,severities=[1])", "clean"), tiny()) == (
        "shift(severities=(1, ), limit=5)",
        "clean",
    )
    assert suite_of("shift(limit=5)").limit == 5


@pytest.mark.parametrize(
    "given, said", [(("claen",), "did you mean clean"), (("clean", "clean"), "different"), ((), "at least one")]
)
def test_what_is_wrong_is_said(given, said):
    with pytest.raises(BadStudy, match=said):
        study_suites(given, tiny())


def test_other_settings_replace_a_suite():
    assert merged(("clean", "shift"), ("shift(limit=5)",)) == ("clean", "shift(limit=5)")
