"""Ensembles inside one network beside one network and a deep ensemble, on images: BatchEnsemble to rank-1."""

from collections.abc import Sequence

from reproductions.harness import SEVEN, Options, Section, study

IMAGES, EPOCHS = 4_000, 10
ONE, DEEP = "one network", "deep ensemble of 4"
SAMPLER = "adamw(epochs={epochs}, batch_size=32, lr=0.002, weight_decay=0.0)"
RECIPES = {
    ONE: "{sampler}",
    "BatchEnsemble, random signs": "batch_ensemble(init='sign') + {sampler}",
    "FiLM-Ensemble": "film_ensemble + {sampler}",
    "Masksembles, scale 2": "masksembles + {sampler}",
    "Packed-Ensemble, alpha 2": "packed_ensemble + {sampler}",
    "MIMO of 2": "mimo(num_members=2) + mimo_batches(repetitions=2) + {sampler}",
    "rank-1 network": "rank1_bnn + elbo + {sampler}",
    DEEP: "{sampler} + deep_ensemble(size=4)",
}
AGAINST_DEEP = (ONE, "BatchEnsemble, random signs", "FiLM-Ensemble", DEEP)
# uncertainty-baselines, WRN-28-10 on CIFAR-10, four members (MIMO: three): NLL / accuracy / ECE
PUBLISHED = {
    ONE: "0.159 / 96.0 / 0.023",
    "BatchEnsemble, random signs": "0.136 / 96.3 / 0.018",
    "MIMO of 2": "0.123 / 96.4 / 0.010",
    "rank-1 network": "0.128 / 96.3 / 0.008",
    DEEP: "0.114 / 96.6 / 0.010",
}


def run(options: Options) -> list[Section]:
    """All of them."""
    return [images(options, tuple(RECIPES))]


def images(options: Options, names: Sequence[str]) -> Section:
    """A small residual network on 4,000 images of CIFAR-10: quality, shift, disagreement, and the price."""
    sampler = SAMPLER.format(epochs=options.epochs(EPOCHS))
    lines = {name: RECIPES[name].format(sampler=sampler) for name in names}
    found = study(
        options,
        "cifar10",
        list(lines.values()),
        backbone="resnet(depth=8, width=8)",
        suites=("clean", f"shift({SEVEN}, severities=(1, 3, 5), limit=500)", "ood", "cost"),
        data_dir=str(options.data_dir),
        val=47_500 - IMAGES,
        calibration=2_500,
        augment=None,
        ood=True,
    )
    rows = [
        [
            name,
            found.cell(text, "nll"),
            found.cell(text, "accuracy", scale=100, digits=1),
            found.cell(text, "ece"),
            found.cell(text, "nll", evaluation="shift"),
            found.cell(text, "epistemic"),
            found.cell(text, "auroc_epistemic", evaluation="ood", scale=100, digits=1, data="clothes"),
            found.cell(text, "parameters", evaluation="cost", scale=1e-3, digits=1),
            found.cell(text, "multiply_adds", evaluation="cost", scale=1e-6, digits=1),
            PUBLISHED.get(name, ""),
        ]
        for name, text in lines.items()
    ]
    header = ["predictor", "NLL", "accuracy %", "ECE", "shifted NLL", "mutual information, nats"]
    header += ["OOD AUROC % by mutual information (clothes)", "thousand parameters"]
    header += ["million multiply-adds an image", "published: NLL / accuracy / ECE"]
    note = (
        "Published: google/uncertainty-baselines, WRN-28-10 on all of CIFAR-10, four members (MIMO three, rank-1 with "
        "Gaussians). The tables of FiLM-Ensemble, Masksembles and Packed-Ensembles were not at hand. All rows here see "
        "the images equally often, in which members of one network learn less than a network alone."
    )
    title = f"CIFAR-10 ({IMAGES:,} training images), ResNet-8 of 8 filters, Adam 2e-3, {EPOCHS} epochs"
    return Section(title, header, rows, note)
