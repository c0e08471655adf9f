"""BatchEnsemble: four members at the weights of one; what their initialisation does."""

from reproductions.harness import Options, Section, study
from reproductions.implicit_ensembles import AGAINST_DEEP, images

SAMPLER = "adamw(epochs={epochs}, batch_size=100, lr=0.001, weight_decay=0.0, schedule='constant')"
RECIPES = {
    "one network": "{sampler}",
    "BatchEnsemble, N(1, 0.1²)": "batch_ensemble(num_members=4, init_scale=0.1) + {sampler}",
    "BatchEnsemble, N(1, 0.5²)": "batch_ensemble(num_members=4) + {sampler}",
    "BatchEnsemble, random signs": "batch_ensemble(num_members=4, init='sign') + {sampler}",
    "deep ensemble of 4": "{sampler} + deep_ensemble(size=4)",
}
PROTOTYPE = {  # the sheet's own measurement on 3,000 images: NLL / accuracy / ECE
    "one network": "0.617 / 83.2 / 0.080",
    "BatchEnsemble, N(1, 0.1²)": "0.634 / 83.1 / 0.086",
    "BatchEnsemble, N(1, 0.5²)": "0.563 / 83.7 / 0.065",
    "BatchEnsemble, random signs": "0.514 / 83.6 / 0.044",
    "deep ensemble of 4": "",
}


def run(options: Options) -> list[Section]:
    """An MLP on fashion-mini, four members, by initialisation of the fast weights."""
    sampler = SAMPLER.format(epochs=options.epochs(25))
    lines = {name: text.format(sampler=sampler) for name, text in RECIPES.items()}
    found = study(options, "fashion-mini", list(lines.values()), backbone="mlp(hidden=(200, 200))")
    rows = [
        [
            name,
            found.cell(text, "nll"),
            found.cell(text, "accuracy", scale=100, digits=1),
            found.cell(text, "ece"),
            found.cell(text, "nll", evaluation="shift"),
            found.cell(text, "epistemic", digits=3),
            found.cell(text, "auroc_epistemic", evaluation="ood", scale=100, digits=1),
            PROTOTYPE[name],
        ]
        for name, text in lines.items()
    ]
    header = ["predictor", "NLL", "accuracy %", "ECE", "shifted NLL", "mutual information, nats"]
    header += ["OOD AUROC % by mutual information (digits)", "prototype on 3,000 images: NLL / accuracy / ECE"]
    note = (
        "Published (Wen et al., arXiv 2002.06715, Table 2; ResNet-32x4, accuracy of one network / BatchEnsemble / "
        "ensemble of 4): CIFAR-10 95.31 / 95.94 / 96.30, CIFAR-100 78.32 / 80.32 / 81.02. The last column is an "
        "earlier prototype of ours: a 784-200-200-10 MLP, the same optimiser and number of epochs."
    )
    title = "fashion-mini (6,000 images), MLP 784-200-200-10, Adam 1e-3, 25 epochs"
    return [Section(title, header, rows, note), images(options, AGAINST_DEEP)]
