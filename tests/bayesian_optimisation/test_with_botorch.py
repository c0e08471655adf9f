"""Without BoTorch the error says which extra brings it. With it: tests/interop/test_botorch.py."""

import sys

import pytest
import torch

from levelhead.bayesian_optimisation.with_botorch import GaussianProcess, model_of, propose
from levelhead.types import MissingExtra


@pytest.mark.parametrize(
    "call",
    [
        lambda: GaussianProcess()(torch.rand(3, 1), torch.rand(3), 0),
        lambda: model_of(lambda x: (x[:, 0], x[:, 0]), like=torch.ones(1)),
        lambda: propose(None, 1, best=0.0),
    ],
)
def test_the_extra_is_named(call, monkeypatch):
    for name in ("botorch", "botorch.models", "botorch.models.model", "botorch.fit", "botorch.acquisition.analytic"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"levelhead\[gp\]"):
        call()
