"""Spatial smoothing: with it, MC dropout needs fewer passes, and one network is better calibrated and more robust."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead import evaluation
from levelhead.metrics.calibration import ece
from levelhead.metrics.classification import accuracy, nll
from levelhead.posthoc.temporal_smoothing import FrameStream, frame_weights
from levelhead.predictive import CategoricalMixture, mix
from levelhead.predictor import Ensemble
from levelhead.processes import each
from levelhead.storage import load
from levelhead.studies.compare import compare
from levelhead.studies.suites import suite_of
from levelhead.tasks.load import load_task
from reproductions.harness import SEVEN, Measured, Options, Section, number, remembered

# 10,000 of CIFAR-10's training images at their own size; fewer would be a rehearsal.
TASK = {"val": 37500, "calibration": 2500}
TESTED = 1000  # test images for the curves over passes
PASSES = (1, 2, 5, 10, 20, 50)
CORRUPTIONS = "gaussian_noise, shot_noise, defocus_blur, contrast, brightness, pixelate, jpeg_compression"
SHIFT = f"shift(shifts=({CORRUPTIONS}), severities=(3,), limit=500)"
EPOCHS = 14

STREAMS, FRAMES = 300, 8
PUBLISHED_STREAMS = {  # Park, Lee & Kim (arXiv 1907.05911): U-Net on CamVid, NLL, accuracy and ECE in %
    "network": "0.314, 91.1, 4.31",
    "network, smoothed": "0.284, 91.2, 3.00",
    "dropout, 1 pass": "",
    "dropout, 50 passes": "0.276, 91.8, 3.71",
    "dropout, 1 pass a frame, smoothed": "0.253, 92.0, 2.24",
}

Cell = dict[str, Tensor]  # what one trained network predicts


@dataclass(frozen=True, eq=False)
class Arm:
    """A network, how dropout gets into it, and what was published by the number of passes, without and with smoothing:
    NLL, and accuracy in %, on CIFAR-100."""

    title: str
    backbone: str
    surgery: str
    dropout: str
    published: Mapping[int, tuple[str, str]]


ARMS = (
    Arm(
        "VGG-11 of width 16, hidden layers of 256 and 256 in its head",
        "vgg(depth=11, width=16)",
        "mlp_head(hidden=(256, 256)) + ",
        "mc_dropout(p=0.3, num_samples=1, where='activations')",
        {50: ("1.13, 68.8", "1.03, 71.4")},  # VGG-16
    ),
    Arm(
        "ResNet-8 of width 16",
        "resnet(depth=8, width=16)",
        "",
        "mc_dropout(p=0.3, num_samples=1, where='blocks')",
        {  # ResNet-18
            1: ("1.02, 75.0", "0.91, 77.3"),
            2: ("0.94, 76.2", "0.855, 78.2"),
            5: ("0.885, 76.9", "0.82, 78.65"),
            10: ("0.867, 77.0", "0.81, 78.9"),
            50: ("0.85, 77.35", "0.80, 79.0"),
        },
    ),
)


def run(options: Options) -> list[Section]:
    """CIFAR-10 with dropout by the number of passes; fashion-mini without dropout."""
    cells = {arm: fitted(arm, options) for arm in ARMS}
    y = load_task("cifar10", data_dir=str(options.data_dir), **TASK).test.y[:TESTED]
    tables = [section for arm in ARMS for section in sections(arm, cells[arm], y, options)]
    return [*tables, streams(options), without_dropout(options)]


def lines(arm: Arm, options: Options) -> tuple[str, str]:
    """The recipes of an arm, without smoothing and with it."""
    sampler = f"sgd(epochs={options.epochs(EPOCHS)}, batch_size=64, lr=0.05, warmup_epochs=1.0, precision='bfloat16')"
    return tuple(f"{arm.surgery}{smooth}{arm.dropout} + {sampler}" for smooth in ("", "spatial_smoothing + "))


def fitted(arm: Arm, options: Options) -> tuple[list[Cell], list[Cell]]:
    """Per seed, without smoothing and with it: log probabilities of 50 passes and of one that draws nothing; scores of
    corrupted images."""
    recipes = lines(arm, options)
    found = compare(
        "cifar10",
        recipes,
        backbones=arm.backbone,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
        data_dir=str(options.data_dir),
        **TASK,
    )
    if found.failures:
        raise SystemExit(f"failed: {dict(found.failures)}")
    kept = options.root / "spatial_smoothing"
    jobs = [(cell.folder, kept / "-".join(cell.folder.parts[-3:]), str(options.data_dir)) for cell in found.cells]
    predicted = list(zip(found.cells, each(measured, jobs, workers=options.workers or 2), strict=True))
    plain, smooth = ([made for cell, made in predicted if cell.name == line] for line in recipes)
    return plain, smooth


def sections(
    arm: Arm, cells: tuple[list[Cell], list[Cell]], y: Int[Tensor, " batch"], options: Options
) -> list[Section]:
    """The tables of one network."""
    rows = []
    for n in PASSES:
        for smooth, word in enumerate(("no", "yes")):
            found = [by_groups(cell["drawn"], y, n) for cell in cells[smooth]]
            rows.append([f"{n}", word, *columns(found), *arm.published.get(n, ("", ""))[smooth : smooth + 1]])
    header = ["passes", "smoothing", "NLL", "accuracy", "ECE", "published NLL, accuracy %"]
    note = (
        f"10,000 training images, {options.epochs(EPOCHS)} epochs; {TESTED:,} test images. Rows of n passes are means "
        "over the 50 / n disjoint groups of the same 50 passes. Published: VGG-16 and ResNet-18 on CIFAR-100, 200 "
        "epochs, read off figures."
    )
    return [
        Section(f"CIFAR-10, {arm.title}", header, rows, note),
        needed(arm, cells, y),
        further(arm, cells, y),
    ]


def needed(arm: Arm, cells: tuple[list[Cell], list[Cell]], y: Int[Tensor, " batch"]) -> Section:
    """How much NLL the passes beyond n still gain: the part of the claim that does not ask for a better network."""
    rows = []
    for smooth, word in enumerate(("no", "yes")):
        curves = [[by_groups(cell["drawn"], y, n)[0] for n in PASSES] for cell in cells[smooth]]
        rows.append([word, *(number([curve[i] - curve[-1] for curve in curves]) for i in range(len(PASSES) - 1))])
    return Section(f"{arm.title}: NLL above that of 50 passes", ["smoothing", *map(str, PASSES[:-1])], rows)


def further(arm: Arm, cells: tuple[list[Cell], list[Cell]], y: Int[Tensor, " batch"]) -> Section:
    """Dropout switched off, ensembles of the seeds, and corrupted images."""
    rows = []
    for smooth, word in enumerate(("no", "yes")):
        made = cells[smooth]
        rows.append(["no draws at prediction", word, *columns([by_groups(cell["off"], y, 1) for cell in made])])
        mixed = scores(torch.cat([cell["drawn"] for cell in made]), y)
        rows.append([f"the {len(made)} seeds together, 50 passes each", word, *(f"{value:.3f}" for value in mixed)])
        rows.append(["corrupted images, 5 passes", word, *columns([cell["shifted"].tolist() for cell in made])])
    rows.sort(key=lambda row: row[0])
    note = f"Corrupted: {CORRUPTIONS.replace('_', ' ')}; severity 3, 500 images each."
    return Section(f"{arm.title}: further", ["predictor", "smoothing", "NLL", "accuracy", "ECE"], rows, note)


def without_dropout(options: Options) -> Section:
    """Deterministic networks, each alone, and the seeds together as a deep ensemble."""
    sampler = f"sgd(epochs={options.epochs(10)}, lr=0.1)"
    texts = {"no": sampler, "yes": f"spatial_smoothing + {sampler}"}
    suites = ("clean", f"shift({SEVEN}, severities=(1, 3, 5), limit=1000)")
    found = compare(
        "fashion-mini",
        list(texts.values()),
        backbones="resnet(depth=8, width=8)",
        seeds=options.seeds,
        suites=suites,
        root=options.root,
        workers=options.workers,
    )
    alone, together = Measured(found.records()), []
    for text in texts.values():
        cells = [cell for cell in found.cells if cell.name == text]
        ensemble = Ensemble([load(cell.folder / "predictor") for cell in cells])
        measured = evaluation.records(ensemble, cells[0].source.load(), [suite_of(suite) for suite in suites])
        together += [{**record._asdict(), "recipe": text, "seed": 0} for record in measured]
    rows = []
    for name, tables in (("one network", alone), (f"ensemble of {options.seeds}", Measured(pd.DataFrame(together)))):
        for word, text in texts.items():
            scores = [tables.values(text, metric) for metric in ("nll", "accuracy", "ece")]
            scores += [tables.values(text, metric, evaluation="shift") for metric in ("nll", "accuracy")]
            single = len(scores[0]) == 1
            rows.append([name, word, *(f"{value[0]:.3f}" if single else number(value) for value in scores)])
    header = ["predictor", "smoothing", "NLL", "accuracy", "ECE", "shifted NLL", "shifted accuracy"]
    note = (
        "Published, one network, ResNet-18 on CIFAR-100: NLL 0.886 and 77.9 % without, 0.863 and 79.0 % with smoothing."
    )
    title = "fashion-mini, ResNet-8 of width 8, no dropout, 10 epochs; shifts of severity 1, 3, 5"
    return Section(title, header, rows, note)


def streams(options: Options) -> Section:
    """Temporal smoothing: frames of a picture that moves under fresh noise, one pass a frame, and no training."""
    found = compare(
        "cifar10",
        lines(ARMS[0], options)[1:],
        backbones=ARMS[0].backbone,
        seeds=options.seeds,
        suites=("clean",),
        root=options.root,
        workers=options.workers,
        data_dir=str(options.data_dir),
        **TASK,
    )
    kept = options.root / "spatial_smoothing"
    jobs = [(cell.folder, kept / f"stream-{cell.seed}", str(options.data_dir)) for cell in found.cells]
    seeds = list(each(followed, jobs, workers=options.workers or 2))
    rows = [[name, *columns([found[name] for found in seeds]), PUBLISHED_STREAMS[name]] for name in PUBLISHED_STREAMS]
    note = (
        f"{STREAMS} test images, {FRAMES} frames each: moved by up to 2 pixels, noise of deviation 0.1; scores "
        "of the last frame. Published: U-Net on CamVid, NLL, accuracy %, ECE %."
    )
    return Section(
        f"Streams: temporal smoothing, {ARMS[0].title}, spatially smoothed",
        ["predictor", "NLL", "accuracy", "ECE", "published"],
        rows,
        note,
    )


def followed(folder: Path, kept: Path, data_dir: str) -> dict[str, list[float]]:
    """Scores of the last frame, by what predicts it."""

    def make() -> dict[str, list[float]]:
        task = load_task("cifar10", data_dir=data_dir, **TASK)
        predictor = load(folder / "predictor")
        (network,) = predictor.networks()
        rows = next(iter(task.test.ordered(STREAMS)))
        draw = torch.Generator().manual_seed(0)
        moves = torch.randint(-2, 3, (FRAMES, 2), generator=draw).tolist()
        moved = torch.stack([rows.x.roll(move, (-2, -1)) for move in moves])
        frames = (moved + 0.1 * torch.randn(moved.shape, generator=draw)).clamp(0, 1)
        found = {}
        with torch.no_grad():
            still = lambda x: CategoricalMixture(network(x))  # noqa: E731
            found["network"] = still(frames[-1])
            found["network, smoothed"] = mix([still(x) for x in frames.flip(0)[:6]], frame_weights(6, 0.8).float())
            network.num_samples = 50
            found["dropout, 50 passes"] = predictor(frames[-1])
            network.num_samples = 1
            found["dropout, 1 pass"] = predictor(frames[-1])
            for belief in FrameStream(predictor).follow(frames):
                found["dropout, 1 pass a frame, smoothed"] = belief
        return {name: list(scores(belief.log_probs[None], rows.y)) for name, belief in found.items()}

    return remembered(kept.with_suffix(".json"), make)


def measured(folder: Path, kept: Path, data_dir: str) -> dict[str, Tensor]:
    """What one trained network predicts, kept in a file."""
    place = kept.with_suffix(".pt")
    if place.is_file():
        return torch.load(place)
    task = load_task("cifar10", data_dir=data_dir, **TASK)
    predictor = load(folder / "predictor")
    (network,) = predictor.networks()
    x = next(iter(task.test.ordered(TESTED))).x
    found = {}
    with torch.no_grad():
        batches = x.split(100)
        found["off"] = torch.cat([network(b) for b in batches], 1).log_softmax(-1)
        network.num_samples = 5 if network.stochastic else 1
        measured = evaluation.records(predictor, task, (suite_of(SHIFT),))
        if network.stochastic:
            torch.manual_seed(0)
            found["drawn"] = torch.cat([network(b, num_samples=max(PASSES)) for b in batches], 1).log_softmax(-1)
    means = [[r.value for r in measured if r.metric == metric] for metric in ("nll", "accuracy", "ece")]
    found["shifted"] = torch.tensor([sum(values) / len(values) for values in means])
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, place)
    return found


def columns(found: Sequence[Sequence[float]]) -> list[str]:
    """Each score's mean and standard error over seeds."""
    return [number([float(value) for value in column]) for column in zip(*found, strict=True)]


def by_groups(
    log_probs: Float[Tensor, "draw batch class"], y: Int[Tensor, " batch"], size: int
) -> tuple[float, float, float]:
    """NLL, accuracy and ECE of `size` passes: means over the disjoint groups of so many."""
    groups = rearrange(log_probs[: len(log_probs) // size * size], "(group draw) b c -> group draw b c", draw=size)
    found = torch.tensor([scores(group, y) for group in groups], dtype=torch.float64)
    return tuple(found.mean(0).tolist())


def scores(log_probs: Float[Tensor, "draw batch class"], y: Int[Tensor, " batch"]) -> tuple[float, float, float]:
    """NLL, accuracy and ECE (10 bins) of the mixture."""
    mixture = log_probs.logsumexp(0).log_softmax(-1)
    return float(nll(mixture, y)), float(accuracy(mixture, y)), float(ece(mixture, y, bins=10))
