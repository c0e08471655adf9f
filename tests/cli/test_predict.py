"""What `levelhead predict` says about a row: sets, intervals and abstentions where the predictor has them."""

import torch
from posthoc.small import Table

from levelhead.cli.predict import believe
from levelhead.posthoc.selective import Selected
from levelhead.predictive import Predictive
from levelhead.predictor import Predictor

X = torch.arange(2.0)[:, None]


class Decided(Predictor):
    """Beliefs with decisions attached."""

    def __init__(self, inner: Predictor, sets=None, intervals=None) -> None:
        super().__init__()
        self.inner, self.sets, self.intervals = inner, sets, intervals

    def forward(self, x: torch.Tensor) -> Predictive:
        belief = self.inner(x)
        return belief.with_sets(self.sets) if self.intervals is None else belief.with_intervals(self.intervals)

    def children_predictors(self) -> tuple[Predictor, ...]:
        return (self.inner,)


def test_sets_name_their_labels_and_abstentions_are_said():
    table = Table(torch.tensor([[[4.0, 0.0, 0.0], [0.1, 0.0, 0.0]]]))
    model = Selected(Decided(table, sets=torch.tensor([[True, False, False], [True, False, True]])), "confidence", 0.5)
    first, second = believe(model, ["a", "b"], X, ["cat", "dog", "eel"])
    assert (first["label"], first["set"], first["accepted"]) == ("cat", "cat", True)
    assert (second["set"], second["accepted"]) == ("cat | eel", False)
    plain = believe(table, ["a", "b"], X, [])
    assert "set" not in plain[0]
    assert "accepted" not in plain[0]


def test_intervals_are_numbered_like_targets():
    for targets, names in ((1, {"low", "high"}), (2, {"low 0", "high 0", "low 1", "high 1"})):
        table = Table(means=torch.zeros(1, 2, targets), variances=torch.ones(1, 2, targets))
        intervals = torch.arange(4.0 * targets).reshape(2, targets, 2)
        (first, second) = believe(Decided(table, intervals=intervals), ["a", "b"], X, [])
        assert names <= first.keys()
        assert [second[name] for name in ("low 0", "high 0") if targets == 2] == ([4.0, 5.0] if targets == 2 else [])
