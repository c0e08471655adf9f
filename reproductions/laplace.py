"""Last-layer Laplace: calibrates one network after training; a mixture of Laplaces is better than either part."""

from reproductions.harness import Options, Section, study

RECIPES = {
    "MAP": "{sampler}",
    "last-layer Laplace": "{sampler} + laplace",
    "ensemble of 5": "{sampler} + deep_ensemble(size=5)",
    "mixture of 5 Laplaces": "{sampler} + laplace + deep_ensemble(size=5)",
}


def run(options: Options) -> list[Section]:
    """LeNet-5 on fashion-mini: clean, shifted, out of distribution."""
    sampler = f"sgd(epochs={options.epochs(30)}, lr=0.05)"
    lines = {name: text.format(sampler=sampler) for name, text in RECIPES.items()}
    found = study(options, "fashion-mini", list(lines.values()), backbone="lenet")
    rows = [
        [
            name,
            found.cell(text, "nll"),
            found.cell(text, "accuracy", scale=100, digits=1),
            found.cell(text, "ece"),
            found.cell(text, "nll", evaluation="shift"),
            found.cell(text, "ece", evaluation="shift"),
            found.cell(text, "auroc_total", evaluation="ood", scale=100, digits=1),
        ]
        for name, text in lines.items()
    ]
    header = ["predictor", "NLL", "accuracy %", "ECE", "shifted NLL", "shifted ECE", "OOD AUROC % (digits)"]
    return [Section("fashion-mini, LeNet-5", header, rows)]
