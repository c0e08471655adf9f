import pytest
import torch

from levelhead.metrics.rows import labelled_rows, top_label


def test_flattens_sites_and_drops_the_void() -> None:
    log_probs = torch.randn(2, 3, 4, 5).log_softmax(-1)
    y = torch.randint(5, (2, 3, 4))
    y[0, 1] = 255
    rows, labels = labelled_rows(log_probs, y, void=255)
    kept = [(b, h, w) for b in range(2) for h in range(3) for w in range(4) if y[b, h, w] != 255]
    assert rows.dtype == torch.float64
    assert labels.tolist() == [int(y[place]) for place in kept]
    torch.testing.assert_close(rows, torch.stack([log_probs[place] for place in kept]).double())


def test_confidence_never_exceeds_one() -> None:
    confidence, correct = top_label(torch.tensor([[3e-6, -20.0]]), torch.tensor([1]))
    assert confidence.tolist() == [1.0]
    assert correct.tolist() == [False]


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="float32 or wider"):
        labelled_rows(torch.randn(50, 100).log_softmax(-1).bfloat16(), torch.zeros(50).long())


@pytest.mark.parametrize(
    "log_probs, y, message",
    [
        (torch.zeros(3, 2), torch.zeros(3).long(), "log_softmax"),  # logits
        (torch.full((3, 2), 0.5), torch.zeros(3).long(), "log_softmax"),  # probabilities
        (torch.full((3, 2), torch.nan), torch.zeros(3).long(), "off by nan"),
        (torch.zeros(3, 2).log_softmax(-1), torch.tensor([0, 1, 2]), "void"),
        (torch.zeros(3, 2).log_softmax(-1), torch.tensor([0, 1, -1]), "void"),
        (torch.zeros(0, 2), torch.zeros(0).long(), "no row counts"),
    ],
)
def test_bad_input_is_named(log_probs: torch.Tensor, y: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labelled_rows(log_probs, y)


def test_all_void_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row counts"):
        labelled_rows(torch.zeros(3, 2).log_softmax(-1), torch.full((3,), 9), void=9)
