"""Spatial smoothing: with it, MC dropout needs fewer passes, and one network is better calibrated and more robust."""

from reproductions.harness import SEVEN, Options, Section, by_passes, study

PASSES = (1, 2, 5, 20)
BACKBONE = "resnet(depth=8, width=8)"
SHIFT = f"shift({SEVEN}, severities=(1, 3, 5), limit=1000)"
PUBLISHED = {  # Park & Kim (arXiv 2105.12639), ResNet-18 on CIFAR-100, read off figures: NLL without and with smoothing
    0: ("0.886", "0.863"),
    1: ("1.02", "0.91"),
    2: ("0.94", "0.855"),
    5: ("0.885", "0.82"),
    20: ("0.85 (50 passes)", "0.80 (50 passes)"),
}


def run(options: Options) -> list[Section]:
    """ResNet-8 on fashion-mini, deterministic and with MC dropout, by the number of passes."""
    sampler = f"sgd(epochs={options.epochs(10)}, lr=0.1)"
    dropout = f"mc_dropout(p=0.1, num_samples={max(PASSES)}) + {sampler}"
    once = [sampler, f"spatial_smoothing + {sampler}"]
    drawing = [dropout, f"spatial_smoothing + {dropout}"]
    still = study(options, "fashion-mini", once, backbone=BACKBONE, suites=("clean", SHIFT))
    drawn = by_passes(options, "fashion-mini", drawing, PASSES, backbone=BACKBONE, suites=("clean",))
    rows = []
    for n in (0, *PASSES):
        for smooth in (False, True):
            found, text = (drawn[n], drawing[smooth]) if n else (still, once[smooth])
            shifted = None if n else still
            rows.append(
                [
                    f"MC dropout, {n} passes" if n else "deterministic",
                    "yes" if smooth else "no",
                    found.cell(text, "nll"),
                    found.cell(text, "accuracy", scale=100, digits=1),
                    found.cell(text, "ece"),
                    shifted.cell(text, "nll", evaluation="shift") if shifted else "",
                    shifted.cell(text, "accuracy", evaluation="shift", scale=100, digits=1) if shifted else "",
                    PUBLISHED[n][smooth],
                ]
            )
    header = ["predictor", "smoothing", "NLL", "accuracy %", "ECE", "shifted NLL", "shifted accuracy %"]
    header += ["published NLL, ResNet-18 on CIFAR-100"]
    return [
        Section(
            "fashion-mini, ResNet-8 of width 8, 10 epochs; shifts: severities 1, 3, 5 on 1,000 images", header, rows
        )
    ]
