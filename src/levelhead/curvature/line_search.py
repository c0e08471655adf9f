"""The smallest value of a function of one positive number, however badly the function behaves."""

import math
from collections.abc import Callable

GOLDEN = (math.sqrt(5) - 1) / 2
POINTS = 41
TOLERANCE = 1e-7  # of the logarithm of the argument: below it a smooth loss in float64 is flat


def minimise(
    loss: Callable[[float], float], low: float, high: float, *, points: int = POINTS, tolerance: float = TOLERANCE
) -> float:
    """The argument in [low, high] with the smallest loss: the best of a log grid, refined between its neighbours.

    Golden section needs no derivative and cannot leave the bracket; losses that are not numbers count as infinite. The
    result is never worse than the best point of the grid. Raises ValueError unless 0 < low < high, or where no point of
    the grid has a finite loss.
    """
    if not 0 < low < high:
        raise ValueError(f"minimise: wants 0 < low < high, got {low}, {high}")

    def at(log_argument: float) -> float:
        value = float(loss(math.exp(log_argument)))
        return value if math.isfinite(value) else math.inf

    first, last = math.log(low), math.log(high)
    grid = [first + (last - first) * place / (points - 1) for place in range(points)]
    values = [at(point) for point in grid]
    best = min(range(points), key=values.__getitem__)
    if values[best] == math.inf:
        raise ValueError("minimise: the loss is finite nowhere on the grid")
    a, b = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    loss_c, loss_d = at(c), at(d)
    while b - a > tolerance:
        if loss_c <= loss_d:
            b, d, loss_d = d, c, loss_c
            c = b - GOLDEN * (b - a)
            loss_c = at(c)
        else:
            a, c, loss_c = c, d, loss_d
            d = a + GOLDEN * (b - a)
            loss_d = at(d)
    candidates = [(values[best], grid[best]), (loss_c, c), (loss_d, d)]
    return min(max(math.exp(min(candidates)[1]), low), high)
