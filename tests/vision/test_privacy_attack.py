"""The stated epsilon, attacked: 100,000 windows with and without one vote; and the sampler against OpenDP's."""

from __future__ import annotations

import math
import operator
import random
import secrets
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge.types import Vote
from edge.vision.privacy import Policy, discrete_laplace, release, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Sampler = Callable[[Fraction], int]

N = 100_000
FEW = 20_000
"""Draws that are enough to catch a broken sampler."""
ALPHA = 1e-6
REACH = 3
"""Events looked at: the value is x, at most x, or at least x, for every x this near the two true counts."""
_LOG_FACTORIAL: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, N + 1)))])


def upper_tail(k: int, n: int, p: float) -> float:
    """P(X ≥ k) of a Binomial(n, p)."""
    i = np.arange(k, n + 1)
    choose = _LOG_FACTORIAL[n] - _LOG_FACTORIAL[i] - _LOG_FACTORIAL[n - i]
    return float(np.exp(choose + i * math.log(p) + (n - i) * math.log1p(-p)).sum())


def at_least(k: int, n: int, alpha: float) -> float:
    """Clopper and Pearson's lower bound of a probability that showed itself k times in n."""
    low, high = 0.0, k / n
    for _ in range(20 if k else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(k, n, middle) < alpha else (low, middle)
    return low


def at_most(k: int, n: int, alpha: float) -> float:
    """Their upper bound."""
    return 1 - at_least(n - k, n, alpha)


def observed(votes: list[Vote], draw: Sampler, policy: Policy, n: int) -> Counter[int]:
    """What one cell shows in n windows: what is released of it, or what is kept on disk."""
    counts = tally(votes)
    seen: Counter[int] = Counter()
    for _ in range(n):
        turn = iter(range(16))

        def only_happy(epsilon: Fraction, turn: Iterator[int] = turn) -> int:
            # The other fifteen cells are the same in both lists and drawn independently.
            return draw(epsilon) if next(turn) == 3 else 0

        released, _, kept = release(counts, {}, policy, flush=False, draw=only_happy)
        value = released["unmasked"]["happy"]
        seen[kept["unmasked"]["happy"][0] if value is None else value] += 1
    return seen


def measured_epsilon(without: Counter[int], with_one: Counter[int], count: int) -> float:
    """The largest epsilon that the observations prove, at confidence 1 - ALPHA over all events together."""
    span = range(count - REACH, count + REACH + 2)
    events = [(how, x) for how in (operator.eq, operator.le, operator.ge) for x in span]
    proven, n = 0.0, without.total()
    each = ALPHA / (4 * len(events))  # two orders, two bounds
    for how, x in events:
        a, b = (sum(times for v, times in seen.items() if how(v, x)) for seen in (without, with_one))
        more, fewer = at_least(max(a, b), n, each), at_most(min(a, b), n, each)
        proven = max(proven, math.log(max(more, 1e-12) / fewer))
    return proven


def attack(draw: Sampler, n: int) -> float:
    """Measured epsilon of neighbouring vote lists around the threshold."""
    policy = Policy("discrete-laplace", 1, 5)
    crowd = [Vote("unmasked", "happy")] * 4 + [Vote("masked", "sad")] * 7
    one_more = [*crowd, Vote("unmasked", "happy")]
    return measured_epsilon(observed(crowd, draw, policy, n), observed(one_more, draw, policy, n), 4)


def test_nobody_can_prove_more_than_the_stated_epsilon() -> None:
    proven = attack(discrete_laplace, N)
    assert 0.9 < proven <= 1.0, "below 0.9 the attack itself would be too weak to tell"


def zero_twice(epsilon: Fraction) -> int:
    """Canonne, Kamath and Steinke's sampler without its last rejection."""
    while (magnitude := discrete_laplace(epsilon)) < 0:
        pass
    return magnitude * secrets.choice((1, -1))


def too_little(epsilon: Fraction) -> int:
    """Four fifths of the scale that was stated."""
    return discrete_laplace(epsilon * Fraction(5, 4))


@pytest.mark.parametrize("broken", [zero_twice, too_little])
def test_a_broken_sampler_is_caught(broken: Sampler) -> None:
    assert attack(broken, FEW) > 1.0


def two_sample(one: Counter[int], other: Counter[int], reach: int) -> tuple[float, int]:
    """Pearson's statistic of two samples of one size on -reach … reach, tails pooled; degrees of freedom."""

    def cells(drawn: Counter[int]) -> NDArray[np.float64]:
        below = sum(n for x, n in drawn.items() if x < -reach)
        above = sum(n for x, n in drawn.items() if x > reach)
        return np.array([below, *(drawn[x] for x in range(-reach, reach + 1)), above], float)

    a, b = cells(one), cells(other)
    return float(((a - b) ** 2 / (a + b)).sum()), len(a) - 1


@pytest.mark.parametrize(("epsilon", "reach"), [(Fraction(1), 6), (Fraction(1, 3), 12), (Fraction(7, 5), 4)])
def test_opendp_draws_the_same(epsilon: Fraction, reach: int) -> None:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l1_distance(T=int)
    oracle = dp.m.make_laplace(*space, scale=float(1 / epsilon))
    assert oracle.map(1) == pytest.approx(float(epsilon)), "OpenDP prices this noise at the same epsilon"
    n = 20_000
    theirs = Counter(oracle([0] * n))
    source = random.Random(20261121)  # noqa: S311 - a fixed seed
    ours = Counter(discrete_laplace(epsilon, source.randrange) for _ in range(n))
    value, freedom = two_sample(ours, theirs, reach)
    # Wilson and Hilferty's approximation of the 1 - 10⁻⁶ quantile: theirs are other draws each time.
    limit = freedom * (1 - 2 / (9 * freedom) + 4.753 * math.sqrt(2 / (9 * freedom))) ** 3
    assert value < limit
    ours[0] *= 2
    assert two_sample(ours, theirs, reach)[0] > limit
