"""HMC and its cheap relatives: how near they come to the posterior's predictions, and what the prior does to HMC."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.predictor import Predictor, WeightSamples
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.tasks.digits import digits
from levelhead.types import Batch, Scalar
from reproductions.harness import Measured, Options, Section, number

BACKBONE = "mlp(hidden=(20,), activation='tanh')"
PRIOR = 0.45  # variance 1/5, as in the HMC paper on CIFAR-10
ROWS = 1097
DECAY = 1 / (ROWS * PRIOR**2)  # the same prior in units of the mean loss
# Total variation to HMC on CIFAR-10, ResNet-20 (Izmailov et al., arXiv 2104.14421, figures quoted from memory).
PUBLISHED = {
    "HMC": "0",
    "MAP": "0.19",
    "ensemble of 10": "0.115",
    "SGLD": "0.110",
    "SGHMC": "0.109",
    "cyclical, T = 1": "0.099",
}
# Accepted of 89 iterations of 15,000 leapfrogs, MNIST, MLP 256-256, by weight decay = 1 / prior_scale^2 (2106.11905).
ACCEPTED = {0.1: "88", 0.183: "88", 0.316: "81", 0.577: "56", 1.0: "10", 1.826: "0"}
LEAPFROGS = 32


def run(options: Options) -> list[Section]:
    """The digits, whole: an MLP so small that HMC is affordable."""
    return [*samplers(options), acceptance(options), cost(options)]


def lines(options: Options) -> dict[str, str]:
    """The recipes, by what the table calls them."""
    point = f"sgd(epochs={options.epochs(200)}, lr=0.1, weight_decay={DECAY:.6f})"
    epochs, long = options.epochs(300), options.epochs(1000)

    def cycles(temperature: float) -> str:
        return f"sghmc(epochs={epochs}, batch_size=64, lr=0.5, momentum=0.1, temperature={temperature:.6f}) + cyclical"

    return {
        "HMC": f"hmc(epochs={200 if options.quick else 8000}, chains=3)",
        "MAP": point,
        "ensemble of 10": f"{point} + deep_ensemble(size=10)",
        "SGLD": f"sgld(epochs={long})",
        "SGHMC": f"sghmc(epochs={long})",
        "cyclical, T = 1": cycles(1.0),
        "cyclical, T = 1/N": cycles(1 / ROWS),
    }


def samplers(options: Options) -> list[Section]:
    """Scores of every sampler, its distance to HMC, and HMC's own account."""
    names = lines(options)
    comparison = compare(
        "digits",
        list(names.values()),
        backbones=BACKBONE,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
    )
    measured = Measured(comparison.records())
    test = digits().test
    x = test.x / 255
    probs: dict[tuple[str, int], Tensor] = {}
    account: list[dict[str, float]] = []
    agreement: dict[str, list[float]] = {}
    for cell in comparison.cells:
        predictor = load(cell.folder / "predictor")
        probs[cell.name, cell.seed] = probabilities(predictor, x)
        if isinstance(predictor, WeightSamples):
            agreement.setdefault(cell.name, []).append(predictor.diagnostics.get("rhat_median", torch.nan))
            if cell.name == names["HMC"]:
                account.append(predictor.diagnostics)
    seeds = range(options.seeds)
    rows = []
    for title, line in names.items():
        # HMC is held against another run of itself: what the Monte-Carlo error alone makes
        shift = 1 if title == "HMC" else 0
        pairs = [(probs[line, seed], probs[names["HMC"], (seed + shift) % options.seeds]) for seed in seeds]
        rows.append(
            [
                title,
                measured.cell(line, "accuracy", scale=100, digits=1),
                measured.cell(line, "nll"),
                measured.cell(line, "ece"),
                number([float(entropy(probs[line, seed])) for seed in seeds]),
                number([100 * float((p.argmax(-1) == q.argmax(-1)).double().mean()) for p, q in pairs], 1),
                number([float(0.5 * (p - q).abs().sum(-1).mean()) for p, q in pairs]),
                number(agreement[line]) if line in agreement else "",
                PUBLISHED.get(title, ""),
            ]
        )
    header = [
        *("predictor", "accuracy %", "NLL", "ECE", "entropy (nats)"),
        *("agreement with HMC %", "total variation to HMC", "R-hat, median row", "published TV, CIFAR-10"),
    ]
    scores = Section(
        "digits (1,097 training rows), MLP of 20, prior N(0, 0.45²)",
        header,
        rows,
        "HMC's own row compares runs of different seeds. Agreement: the share of test digits with the same top class. "
        "Published: the HMC paper's ResNet-20 on CIFAR-10, from memory; another scale, for the order only.",
    )
    keys = sorted(set.intersection(*(set(found) for found in account)))
    own = [[key, number([found[key] for found in account], 3)] for key in keys]
    return [scores, Section("What HMC says of its chains", ["diagnostic", "value"], own)]


def acceptance(options: Options) -> Section:
    """Acceptance by the width of the prior, at a fixed number of leapfrogs a quarter period."""
    epochs = 200 if options.quick else 1000
    names = {
        scale: f"hmc(epochs={epochs}, chains=2, prior_scale={scale}, step_size={torch.pi / 2 / LEAPFROGS:.6f}, "
        "target_acceptance=None, jitter=0.0, burn_in=0.2)"
        for scale in ACCEPTED
    }
    comparison = compare(
        "digits",
        list(names.values()),
        backbones=BACKBONE,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
    )
    found: dict[str, list[float]] = {}
    for cell in comparison.cells:
        predictor = load(cell.folder / "predictor")
        assert isinstance(predictor, WeightSamples)
        found.setdefault(cell.name, []).append(100 * predictor.diagnostics["acceptance"])
    rows = [[str(scale), number(found[name], 1), f"{ACCEPTED[scale]} of 89"] for scale, name in names.items()]
    return Section(
        f"Acceptance by prior scale, {LEAPFROGS} leapfrogs a trajectory",
        ["prior scale", "accepted %", "published, MNIST, 15,000 leapfrogs"],
        rows,
    )


def cost(options: Options) -> Section:
    """The time of one gradient of all rows, chain by chain and all chains in one vmap."""
    batch = next(iter(digits().train.batches(None, torch.Generator())))
    rows = []
    for hidden, size in ((20, 100), (20, ROWS), (100, ROWS)):
        for chains in (1, 4):
            part = Batch(batch.x[:size], batch.y[:size], batch.index[:size])
            loop, mapped = (timed(way(hidden, part, chains)) / chains for way in (looped, vmapped))
            rows.append([str(hidden), str(size), str(chains), f"{loop:.2f}", f"{mapped:.2f}"])
    return Section(
        "Milliseconds a gradient and chain, one thread",
        ["hidden units", "rows", "chains", "chain by chain", "vmap"],
        rows,
        "Medians of 50. The sampler goes chain by chain.",
    )


def looped(hidden: int, batch: Batch, chains: int) -> Callable[[], Any]:
    """Gradients of one network after the other."""
    network = MLP(hidden=(hidden,), activation="tanh")(digits().signature)
    parameters = list(network.parameters())

    def gradients() -> Any:
        return [torch.autograd.grad(network_loss(Forward(network, batch)), parameters) for _ in range(chains)]

    return gradients


def vmapped(hidden: int, batch: Batch, chains: int) -> Callable[[], Any]:
    """Gradients of all networks at once."""

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = MLP(hidden=(hidden,), activation="tanh")(digits().signature)

        def forward(self, batch: Batch) -> Scalar:
            return network_loss(Forward(self.network, batch))

    loss = Loss()
    weights = {name: p.detach().expand(chains, *p.shape).clone() for name, p in loss.named_parameters()}
    mapped = vmap(grad_and_value(lambda w: functional_call(loss, w, (batch,))))
    return lambda: mapped(weights)


def timed(action: Callable[[], Any], repeats: int = 50) -> float:
    """The median of its milliseconds."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(1e3 * (time.perf_counter() - start))
    return float(torch.tensor(taken).median())


@torch.no_grad()
def probabilities(predictor: Predictor, x: Tensor) -> Tensor:
    """The predictive of every row."""
    return predictor(x).probs


def entropy(probs: Tensor) -> Tensor:
    """Mean entropy in nats."""
    return torch.special.entr(probs).sum(-1).mean()
