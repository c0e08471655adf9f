"""What the transformers among the backbones share: what may be asked of them, and the grid of their patches."""

from collections.abc import Mapping

HEADS = ("cls", "gap")
LAYER_NORM_EPS = 1e-6


def check_transformer(spec: str, *, positive: Mapping[str, int], mlp_ratio: float, drop_path: float) -> None:
    """ValueError in the name of `spec` for sizes that make no network."""
    for name, number in positive.items():
        if number < 1:
            raise ValueError(f"{spec}: {name} must be at least 1, got {number}")
    if not mlp_ratio > 0:
        raise ValueError(f"{spec}: mlp_ratio must be positive, got {mlp_ratio}")
    if not 0 <= drop_path < 1:
        raise ValueError(f"{spec}: drop_path must be in [0, 1), got {drop_path}")


def check_stages(spec: str, **numbers: tuple[int, ...]) -> None:
    """ValueError in the name of `spec` unless each has a positive number a stage, equally many."""
    (first, wanted), *_ = numbers.items()
    for name, given in numbers.items():
        if not given or min(given) < 1 or len(given) != len(wanted):
            raise ValueError(
                f"{spec}: {name} wants one positive number a stage, as many as {first}={wanted}; got {given}"
            )


def patch_grid(spec: str, sides: tuple[int, int], *, patch: int, stride: int | None = None) -> tuple[int, int]:
    """Rows and columns of patches, `stride` pixels apart (None: side by side).

    Raises ValueError, in the name of `spec`, where they leave pixels over: those would never be seen.
    """
    stride = patch if stride is None else stride
    if min(sides) < patch or any((side - patch) % stride for side in sides):
        raise ValueError(
            f"{spec}: patches of {patch} x {patch} pixels, {stride} apart, do not tile images of {sides[0]} x "
            f"{sides[1]}; choose a patch that divides both sides"
        )
    return (sides[0] - patch) // stride + 1, (sides[1] - patch) // stride + 1
