import dataclasses

import pytest
import torch
from echo import Echo, logits_task

from levelhead.evaluation import records
from levelhead.evaluations.ood import OOD
from levelhead.likelihood import Categorical
from levelhead.metrics.ranking import auroc


def test_detection_is_of_the_outer_rows():
    task = logits_task()
    found = {record.metric: record for record in records(Echo(), task, (OOD(),))}
    inner, outer = (split.x.softmax(-1).amax(-1) for split in (task.test, task.ood["outside"]))
    expected = auroc(-torch.cat([inner, outer]), torch.arange(90) >= 60)
    assert found["auroc_confidence"].value == pytest.approx(
        float(expected), abs=2e-3
    )  # equal in log space but for ties
    assert found["auroc_confidence"].num_examples == 90
    assert found["confidence"].value == pytest.approx(float(outer.mean()), rel=1e-5)
    assert found["confidence"].num_examples == 30


def test_one_member_knows_nothing_of_disagreement():
    found = {record.metric: record.value for record in records(Echo(), logits_task(), (OOD(),))}
    assert found["auroc_epistemic"] == 0.5


def test_the_density_is_a_score_where_there_is_one():
    with_density = {record.metric for record in records(Echo(density=True), logits_task(), (OOD(),))}
    without = {record.metric for record in records(Echo(), logits_task(), (OOD(),))}
    assert with_density - without == {
        "auroc_density",
        "aupr_in_density",
        "aupr_out_density",
        "fpr95_in_density",
        "fpr95_out_density",
    }


def test_labels_of_the_outer_rows_are_not_read():
    task = logits_task()
    voided = dataclasses.replace(task, likelihood=Categorical(3, void=-1))  # the label that outer rows carry
    assert records(Echo(), voided, (OOD(),)) == records(Echo(), task, (OOD(),))


def test_a_task_without_outer_sets_gives_no_records():
    assert records(Echo(), dataclasses.replace(logits_task(), ood={}), (OOD(),)) == []
