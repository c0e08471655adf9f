"""Attacks: what each leaves of a plain network, an ensemble and an adversarially trained one."""

from reproductions.harness import Measured, Options, Section, study

EPS = 0.1
RADII = (0.02, 0.05, 0.2)
ROWS, QUERIES = 300, 300
RECIPES = {
    "plain": "{sampler}",
    "ensemble of 3": "{sampler} + deep_ensemble(size=3)",
    "adversarially trained": "adversarial_training(eps=0.1, clean_weight=0, steps=4, random_start=True, clamp=True)"
    " + {sampler}",
}
ATTACKS = {
    "clean": "clean",
    "FGSM": "fgsm",
    "MIM, 10 steps": "mim",
    "Square, 300 queries": "square",
    "PGD, 40 steps": "pgd",
    "APGD, 100 steps": "apgd",
    "standard ensemble": "standard_ensemble",
    "worst of all, row by row": "worst",
}
METRICS = {
    "accuracy %": ("accuracy", 100, 1),
    "NLL": ("nll", 1, 2),
    "ECE %": ("ece", 100, 1),
    "entropy": ("total", 1, 3),
    "mutual information": ("epistemic", 1, 3),
    "AUROC of entropy": ("auroc_total", 1, 3),
    "AUROC of mutual information": ("auroc_epistemic", 1, 3),
}
CHECKED = f"""Eps {EPS} in the largest coordinate, the same {ROWS} test images for every attack and recipe. The standard
ensemble is APGD by cross-entropy and APGD by DLR towards 9 classes, 50 steps each, and Square with {QUERIES} queries.
Its row and the last one are worst cases, row by row."""
CURVES = """AUROC: how well the uncertainty tells attacked images from the same images unattacked; 0.5 is chance, and
below it attacked images look more ordinary than clean ones."""
FLAGS = "Seeds on which `levelhead.attack_check` raised a flag about PGD with 40 steps, on 32 images."


def run(options: Options) -> list[Section]:
    """Accuracy by attack, uncertainty by radius, and what the checklist says."""
    sampler = f"sgd(epochs={options.epochs(10)}, lr=0.05)"
    lines = {name: text.format(sampler=sampler) for name, text in RECIPES.items()}
    rows, queries, steps = (50, 20, 4) if options.quick else (ROWS, QUERIES, 40)
    members = (
        f"fgsm(eps={EPS})",
        f"mim(eps={EPS})",
        f"square(eps={EPS}, queries={queries})",
        f"apgd(eps={EPS}, steps={5 * steps // 2})",
        f"standard_ensemble(eps={EPS}, steps={5 * steps // 4}, queries={queries})",
        f"pgd(eps={EPS}, steps={steps})",
    )
    suite = f"attack(attacks=({', '.join(members)}), radii={RADII}, limit={rows}, check=32)"
    found = study(options, "fashion-mini", list(lines.values()), backbone="lenet", suites=("clean", suite))
    return [
        _by_attack(found, lines),
        *(_by_radius(found, name, line) for name, line in lines.items()),
        _flags(found, lines),
    ]


def _by_attack(found: Measured, lines: dict[str, str]) -> Section:
    rows = []
    for name, data in ATTACKS.items():
        cells = [
            found.cell(line, "accuracy", evaluation="attack", data=data, scale=100, digits=1) for line in lines.values()
        ]
        rows.append([name, *cells])
    return Section("Accuracy % on fashion-mini, LeNet-5, by attack", ["attack", *lines], rows, CHECKED)


def _by_radius(found: Measured, name: str, line: str) -> Section:
    data = "pgd_by_radius"
    places = sorted(int(s) for s in found.records.query("data == @data")["severity"].dropna().unique())
    radii = [found.values(line, "eps", evaluation="attack", data=data, severity=place)[0] for place in places]
    rows = []
    for title, (metric, scale, digits) in METRICS.items():
        if "epistemic" in metric and "ensemble" not in line:
            continue  # one network has no members that could disagree
        how = {"evaluation": "attack", "digits": digits, "scale": scale}
        first = "" if metric.startswith("auroc") else found.cell(line, metric, data="clean", **how)
        rows.append([title, first, *(found.cell(line, metric, data=data, severity=place, **how) for place in places)])
    header = ["", "clean", *(f"eps {radius:g}" for radius in radii)]
    return Section(f"{name.capitalize()}: along the radius of PGD with 40 steps", header, rows, CURVES)


def _flags(found: Measured, lines: dict[str, str]) -> Section:
    checks = found.records.query("evaluation == 'attack' and data == 'check'")
    rows = []
    for name, line in lines.items():
        raised = checks[(checks["recipe"] == line) & (checks["value"] > 0)]
        counted = raised.groupby("metric").size()
        rows.append([name, ", ".join(f"{metric} ({count})" for metric, count in counted.items()) or "none"])
    return Section("The checklist", ["recipe", "flags raised (seeds)"], rows, FLAGS)
