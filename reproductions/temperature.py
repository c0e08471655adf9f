"""Temperature scaling: best calibrated on clean data, overtaken by ensembles under shift."""

from reproductions.harness import Options, Section, study

RECIPES = {
    "one network": "{sampler}",
    "one network + temperature": "{sampler} + temperature",
    "ensemble of 5": "{sampler} + deep_ensemble(size=5)",
    "ensemble of 5 + temperature": "{sampler} + deep_ensemble(size=5) + temperature",
}
PUBLISHED = {  # Ovadia et al. (arXiv 1906.02530), appendix G: CIFAR-10-C, ECE at the 25, 50, 75 % quantiles
    "one network": ".057 / .127 / .288",
    "one network + temperature": ".022 / .049 / .180",
    "ensemble of 5": ".031 / .037 / .110 (10 members)",
    "ensemble of 5 + temperature": "",
}


def run(options: Options) -> list[Section]:
    """ECE and NLL on clean and on shifted test images, by severity."""
    sampler = f"sgd(epochs={options.epochs(30)}, lr=0.05)"
    lines = {name: text.format(sampler=sampler) for name, text in RECIPES.items()}
    found = study(options, "fashion-mini", list(lines.values()), backbone="lenet")
    severities = sorted(int(s) for s in found.records.query("evaluation == 'shift'")["severity"].dropna().unique())
    sections = []
    for metric, title in (("ece", "ECE (15 bins)"), ("nll", "NLL")):
        rows = []
        for name, text in lines.items():
            cells = [found.cell(text, metric)]
            cells += [found.cell(text, metric, evaluation="shift", severity=severity) for severity in severities]
            rows.append([name, *cells, *([PUBLISHED[name]] if metric == "ece" else [])])
        header = ["predictor", "clean", *(f"severity {severity}" for severity in severities)]
        header += ["published ECE, ResNet-20 on CIFAR-10-C, quantiles"] if metric == "ece" else []
        sections.append(Section(f"{title} on fashion-mini, LeNet-5, mean over corruptions", header, rows))
    return sections
