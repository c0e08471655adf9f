"""The published search: its space, its units, and its sizes."""

import torch

from levelhead.backbones.mlp import MLP
from levelhead.recipes.hyper_deep_ensembles import hyper_deep_ensembles
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.values import get_path


def test_it_searches_three_penalties_and_label_smoothing():
    ensemble = hyper_deep_ensembles(MLP())
    assert (ensemble.size, ensemble.candidates) == (4, 100)
    values = ensemble.setting(Run(0), 1)
    assert len(values) == 4
    assert all(get_path(ensemble.with_setting(values), path) == value for path, value in values.items())
    drawn = [ensemble.setting(Run(0), number) for number in range(1, 200)]
    penalties = torch.tensor([list(values.values())[:3] for values in drawn])
    assert penalties.min() >= 1e-2
    assert penalties.max() <= 1e2
    assert penalties.min() < 2e-2
    assert penalties.max() > 50


def test_it_runs_and_refits():
    ensemble = hyper_deep_ensembles(MLP(hidden=(4,)), size=2, candidates=2, refit=True)
    task = stripes(n=24, size=12)
    predictor = ensemble.shortened().fit(task, 0)
    assert 1 <= len(predictor.members) <= 2
