from levelhead.studies.demo import DEMO, RECIPES, demo_study
from levelhead.studies.grid import plan
from levelhead.studies.suites import study_suites


def test_the_demo_has_ten_recipes_and_three_compositions_that_can_be_read(tmp_path):
    assert len(RECIPES) >= 10
    assert sum(line.count("+") >= 2 for line in RECIPES) >= 3
    cells = plan(DEMO, tmp_path)
    assert [cell.name for cell in cells] == list(RECIPES)  # none equals another
    suites = study_suites(DEMO.suites, cells[0].source.load())
    assert [suite.partition("(")[0] for suite in suites] == ["clean", "shift", "ood", "cost"]


def test_it_may_be_asked_for_more():
    study = demo_study(seeds=(0, 1, 2), backbones=("resnet8",), changes=(("sampler.epochs", 30),))
    assert study.seeds == (0, 1, 2)
    assert dict(study.changes)["sampler.epochs"] == 30
    assert set(dict(study.changes)) == set(dict(DEMO.changes))
    assert study.recipes == RECIPES
