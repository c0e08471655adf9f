import pytest
from echo import Echo, EchoGaussian, logits_task, moments_task
from torch.nn.functional import nll_loss

from levelhead.evaluation import records
from levelhead.evaluations.clean import Clean


def test_numbers_are_those_of_the_test_split():
    task = logits_task()
    found = {record.metric: record for record in records(Echo(), task, (Clean(),))}
    log_probs = task.test.x.log_softmax(-1)
    assert found["accuracy"].value == pytest.approx(float((log_probs.argmax(-1) == task.test.y).double().mean()))
    assert found["nll"].value == pytest.approx(float(nll_loss(log_probs, task.test.y)), rel=1e-5)
    assert {(r.evaluation, r.data, r.severity, r.num_examples) for r in found.values()} == {("clean", "test", None, 60)}


def test_real_targets_get_their_own_metrics():
    metrics = {record.metric for record in records(EchoGaussian(), moments_task(), (Clean(),))}
    assert metrics >= {"rmse", "nll", "crps", "coverage95", "sharpness", "rmse_se", "nll_se"}
    assert "accuracy" not in metrics
