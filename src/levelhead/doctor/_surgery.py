"""Checks after a surgery: what design promises of every network that a surgery returns."""

import copy
import statistics as numbers
import time
from typing import Any

import torch
from torch import Tensor

from levelhead.catalogue import family_of
from levelhead.declared import Stochastic
from levelhead.doctor._diagnosis import Findings, counted, listed
from levelhead.doctor._network import TOLERANCE, largest, loose_tensors, moving, predicted, ungraded
from levelhead.evaluations.cost import multiply_adds, num_parameters
from levelhead.network import Network, Surgery
from levelhead.passes import noise_state, seeded, side_pass
from levelhead.predictor import Point, samples_of
from levelhead.probe import evaluating
from levelhead.text import part_text
from levelhead.types import CannotCompose, NoLayerReplaced

AUTHOR = "Tell the surgery's author; its contract is tests/contracts/test_surgery.py"
REPEATS = 3


def name_of(surgery: Surgery) -> str:
    """What a surgery is called in a diagnosis: its text, where it has one."""
    return part_text(surgery) if family_of(type(surgery)) else getattr(surgery, "__name__", repr(surgery))


def operate(network: Network, surgery: Surgery, x: Tensor) -> tuple[Network | None, Findings]:
    """The network after the surgery and what there is to say; None where the surgery refuses."""
    found = Findings(name_of(surgery))
    held = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        with seeded(0):
            after = surgery(network)
    except (NoLayerReplaced, CannotCompose) as refusal:
        found.fail("applies", " ".join(str(refusal).split()), "Leave this surgery out, or use another backbone")
        return None, found
    untouched = all(torch.equal(tensor, held[name]) for name, tensor in network.state_dict().items())
    found.judge(
        untouched and after is not network,
        "original kept",
        "the network that it was given is untouched",
        "it changed the network that it was given",
        "A surgery returns a new network: use network.replace, which copies",
    )
    converted(network, after, found)
    for check in (shapes, at_rest, rows_differ, gradients, statistics):
        words = check.__name__.replace("_", " ")
        found.attempt(words, lambda check=check: check(network, after, surgery, x, found), AUTHOR)  # type: ignore[misc]
    found.attempt("state dict", lambda: state(network, after, surgery, x, found), AUTHOR)
    found.attempt("cost", lambda: cost(network, after, x, found), AUTHOR)
    return after, found


def converted(before: Network, after: Network, found: Findings) -> None:
    """What it converted and what it left, with the reason."""
    notes = after.notes[len(before.notes) :]
    places = [place for note in notes for place in note.converted]
    found.judge(
        bool(places),
        "converted",
        f"{counted(len(places), 'place')}: {listed(places)}",
        "it notes no place that it changed",
        "Change layers through network.replace, which writes its notes",
    )
    for place, reason in (item for note in notes for item in note.skipped):
        found.warn("skipped", f"{place}: {reason}", "It stays as it was; nothing is to be done if that is intended")


def shapes(before: Network, after: Network, surgery: Surgery, x: Tensor, found: Findings) -> None:
    """(row, batch, output) in both modes, and finite."""
    rows, old = after.num_members, predicted(before, x)
    outputs = [predicted(after, x), predicted(after, x, num_samples=2)]
    with torch.no_grad():
        outputs.append(copy.deepcopy(after).train()(x))
    wanted = [(rows, *old.shape[1:]), (2 * rows, *old.shape[1:]), (rows, *old.shape[1:])]
    found.judge(
        [tuple(o.shape) for o in outputs] == wanted and all(bool(o.isfinite().all()) for o in outputs),
        "outputs",
        f"{counted(rows, 'member')} x {after.num_samples if after.stochastic else 1} draws, finite",
        f"shapes {[tuple(o.shape) for o in outputs]} in eval, eval with two draws, training; wants {wanted}",
        AUTHOR,
    )


def at_rest(before: Network, after: Network, surgery: Any, x: Tensor, found: Findings) -> None:
    """Equal to the original where nothing draws, if the surgery promises that (`exact_at_rest: ClassVar = True`)."""
    old, new = predicted(before, x), predicted(after, x)
    members = after.num_members // before.num_members
    off = largest(new - old.repeat_interleave(members, 0)) / max(largest(old), 1e-12)
    promised = bool(getattr(surgery, "exact_at_rest", False))
    moved = f"outputs move by up to {off:.2g} of their size before training"
    found.judge(
        off <= TOLERANCE or not promised,
        "at rest",
        "equal to the original where nothing draws" if off <= TOLERANCE else moved,
        f"it promises the original's outputs where nothing draws, and {moved}",
        AUTHOR,
    )
    found.judge(
        torch.equal(predicted(after, x), new),
        "eval repeats",
        "the same rows give the same outputs, to the bit",
        "two predictions of the same rows differ: something draws in eval()",
        AUTHOR,
    )
    apart = largest(predicted(after, x[:1]) - new[:, :1]) / max(largest(new), 1e-12)
    found.judge(
        apart <= TOLERANCE,
        "rows apart",
        "a row is predicted alike alone and in company",
        f"a row's outputs move by {apart:.1%} of their size with its company",
        AUTHOR,
    )


def rows_differ(before: Network, after: Network, surgery: Surgery, x: Tensor, found: Findings) -> None:
    """Members are not copies of one another, and draws are draws.

    Features count as well as outputs: a head that starts at zero hides what differs before it.
    """
    if after.num_members > 1:
        pairs = [(j, i) for i in range(after.num_members) for j in range(i)]
        rows = passes(after, x)
        same = [f"{j} and {i}" for j, i in pairs if alike(rows, j, i)]
        found.judge(
            not same,
            "members differ",
            f"all {len(pairs)} pairs of members",
            f"members {listed(same)} are the same",
            "Start them apart (a larger init_scale, or init='sign'): equal members stay equal",
        )
    if after.stochastic:
        kinds = dict.fromkeys(type(layer).__name__ for layer in after.layers(Stochastic))
        found.judge(
            not alike(passes(after, x, num_samples=2), 0, 1),
            "draws differ",
            f"two of {after.num_samples} draws at prediction",
            f"two draws at prediction are the same: {listed(kinds)}",
            "A rate of 0 draws nothing; layers that draw derive from Stochastic and ask self.drawing",
        )


@torch.no_grad()
def passes(network: Network, x: Tensor, *, num_samples: int | None = None) -> tuple[Tensor, Tensor]:
    """Features and outputs of every row, in eval."""
    with evaluating(network):
        return network.embed(x, num_samples=num_samples), network(x, num_samples=num_samples)


def alike(rows: tuple[Tensor, Tensor], first: int, second: int) -> bool:
    """Whether two rows are the same in features and outputs, but for rounding."""
    return all(largest(values[first] - values[second]) <= 1e-5 * largest(values[first]) for values in rows)


def gradients(before: Network, after: Network, surgery: Surgery, x: Tensor, found: Findings) -> None:
    """Every new parameter learns, and those that did before still do."""
    idle, reached = ungraded(after, x)
    known = set(ungraded(before, x)[0])
    late = [name for name in idle if name not in known]
    new = set(moving(after)) - set(moving(before))
    found.judge(
        not late and reached,
        "gradients",
        f"reach the input and all {counted(len(moving(after)), 'parameter')}, {len(new)} of them new",
        f"no gradient reaches {listed(late) or 'the input'}",
        AUTHOR,
    )


def statistics(before: Network, after: Network, surgery: Surgery, x: Tensor, found: Findings) -> None:
    """Neither prediction nor a side pass moves a buffer."""
    twin = copy.deepcopy(after)
    held = {name: b.clone() for name, b in twin.named_buffers()}

    def moved() -> list[str]:
        return [name for name, b in twin.named_buffers() if not torch.equal(b, held[name])]

    predicted(twin, x, num_samples=samples_of(twin))
    by_prediction = moved()
    with torch.no_grad(), side_pass(twin.train(), noise_state(twin.device)):
        twin(x)
    by_side_pass = [name for name in moved() if name not in by_prediction]
    words = [f"prediction moves {listed(by_prediction)}"] if by_prediction else []
    words += [f"a side pass moves {listed(by_side_pass)}"] if by_side_pass else []
    found.judge(
        not words,
        "statistics rest",
        f"prediction and side passes leave all {len(held)} buffers alone",
        "; ".join(words),
        "Layers with statistics move them only in training while track_running_stats is on",
    )


def state(before: Network, after: Network, surgery: Surgery, x: Tensor, found: Findings) -> None:
    """The state dict, loaded into a network made with another seed, gives the same network."""
    with seeded(1):
        twin = surgery(before)
    twin.load_state_dict(after.state_dict())
    same = torch.equal(predicted(twin, x), predicted(after, x))
    loose = loose_tensors(after)
    found.judge(
        same and not loose,
        "state dict",
        f"{len(after.state_dict())} tensors hold everything that was drawn or learned",
        f"tensors outside of it: {listed(loose)}"
        if loose
        else "a twin of another seed that loads it predicts otherwise",
        "Register what a layer draws or learns as parameter or buffer",
    )


def cost(before: Network, after: Network, x: Tensor, found: Findings) -> None:
    """How much more it stores and computes than before."""
    old, new = Point(copy.deepcopy(before)), Point(copy.deepcopy(after))
    parameters = num_parameters(new) / max(num_parameters(old), 1)
    arithmetic = multiply_adds(new, x) / max(multiply_adds(old, x), 1)
    clock = seconds(new, x) / seconds(old, x)
    found.note(
        "cost",
        f"{parameters:.2f} times the parameters, {arithmetic:.2f} times the multiply-adds at prediction, about "
        f"{clock:.1f} times the time",
    )


@torch.no_grad()
def seconds(point: Point, x: Tensor) -> float:
    """Median time of a prediction."""
    point(x)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        point(x)
        times.append(time.perf_counter() - start)
    return numbers.median(times)
