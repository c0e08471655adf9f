"""Ensembles inside one network and from one run, side by side on one residual network."""

from reproductions.harness import SEVEN, Options, Section, study

SAMPLER = "sgd(epochs={epochs}, lr=0.05, batch_size=64)"
RECIPES = {
    "one network": "{sampler}",
    "BatchEnsemble, random signs": "batch_ensemble(init='sign') + {sampler}",
    "FiLM-Ensemble": "film_ensemble + {sampler}",
    "Masksembles, scale 2": "masksembles + {sampler}",
    "Packed-Ensemble, alpha 2": "packed_ensemble + {sampler}",
    "MIMO of 2": "mimo(num_members=2) + mimo_batches(repetitions=2) + {sampler}",
    "rank-1 network": "rank1_bnn + elbo + {sampler}",
    "snapshots, 4 cycles": "{sampler} + snapshot(cycles=4)",
    "deep ensemble of 4": "{sampler} + deep_ensemble(size=4)",
    "the same, distilled": "{sampler} + deep_ensemble(size=4) + distilled",
}


def run(options: Options) -> list[Section]:
    """ResNet-8 of width 16 on fashion-mini: quality, shift, disagreement, and the price."""
    sampler = SAMPLER.format(epochs=options.epochs(8))
    lines = {name: text.format(sampler=sampler) for name, text in RECIPES.items()}
    found = study(
        options,
        "fashion-mini",
        list(lines.values()),
        backbone="resnet(depth=8, width=16)",
        suites=("clean", f"shift({SEVEN}, severities=(1, 3, 5), limit=500)", "ood", "cost"),
    )
    rows = [
        [
            name,
            found.cell(text, "nll"),
            found.cell(text, "accuracy", scale=100, digits=1),
            found.cell(text, "ece"),
            found.cell(text, "nll", evaluation="shift"),
            found.cell(text, "epistemic"),
            found.cell(text, "auroc_total", evaluation="ood", scale=100, digits=1),
            found.cell(text, "parameters", evaluation="cost", scale=1e-3, digits=0),
            found.cell(text, "multiply_adds", evaluation="cost", scale=1e-6, digits=1),
        ]
        for name, text in lines.items()
    ]
    header = ["predictor", "NLL", "accuracy %", "ECE", "shifted NLL", "mutual information, nats"]
    header += ["OOD AUROC % by entropy (digits)", "thousand parameters", "million multiply-adds an image"]
    note = (
        "Published, WRN-28-10 on CIFAR-10, NLL / accuracy (uncertainty-baselines): one network 0.159 / 96.0, "
        "BatchEnsemble 0.136 / 96.3, MIMO 0.123 / 96.4, rank-1 Gaussian 0.128 / 96.3, deep ensemble 0.114 / 96.6. "
        "All here see the same number of epochs, in which members of one network learn less than a network alone."
    )
    return [Section("fashion-mini (6,000 images), ResNet-8 of width 16, 8 epochs, four members", header, rows, note)]
