"""SNGP: better calibrated and better at OOD than one network in one pass, at the same accuracy."""

from reproductions.harness import SEVEN, Options, Section, study

SUITES = ("clean", f"shift({SEVEN}, severities=(1, 3, 5), limit=1000)", "ood")

RECIPES = {
    "plain": "{sampler}",
    "SNGP": "sngp + {sampler}",
    "MC dropout, 10 passes": "mc_dropout(p=0.1, num_samples=10) + {sampler}",
    "ensemble of 4": "{sampler} + deep_ensemble(size=4)",
}
PUBLISHED = {  # uncertainty-baselines, WRN-28-10: CIFAR-10 NLL / accuracy / ECE; CIFAR-10-C NLL / accuracy / ECE
    "plain": ".159 / 96.0 / .023; 1.05 / 76.1 / .153",
    "SNGP": ".134 / 96.0 / .007; .74 / 78.5 / .078",
    "MC dropout, 10 passes": ".145 / 96.1 / .019; 1.27 / 70.0 / .167 (30 passes)",
    "ensemble of 4": ".114 / 96.6 / .010; .81 / 77.9 / .087",
}


def run(options: Options) -> list[Section]:
    """ResNet-8 on fashion-mini: clean, shifted, out of distribution."""
    sampler = f"sgd(epochs={options.epochs(10)}, lr=0.1)"
    lines = {name: text.format(sampler=sampler) for name, text in RECIPES.items()}
    found = study(options, "fashion-mini", list(lines.values()), backbone="resnet(depth=8, width=8)", suites=SUITES)
    rows = [
        [
            name,
            found.cell(text, "nll"),
            found.cell(text, "accuracy", scale=100, digits=1),
            found.cell(text, "ece"),
            found.cell(text, "nll", evaluation="shift"),
            found.cell(text, "accuracy", evaluation="shift", scale=100, digits=1),
            found.cell(text, "ece", evaluation="shift"),
            found.cell(text, "auroc_total", evaluation="ood", scale=100, digits=1),
            PUBLISHED[name],
        ]
        for name, text in lines.items()
    ]
    header = ["predictor", "NLL", "accuracy %", "ECE", "shifted NLL", "shifted accuracy %", "shifted ECE"]
    header += ["OOD AUROC % (digits)", "published, WRN-28-10: CIFAR-10; CIFAR-10-C (NLL / accuracy / ECE)"]
    return [
        Section(
            "fashion-mini, ResNet-8 of width 8, 10 epochs; shifts: severities 1, 3, 5 on 1,000 images", header, rows
        )
    ]
