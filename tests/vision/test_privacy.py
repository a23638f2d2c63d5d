"""The noise has exactly its distribution; what is released is what was counted plus the noise, no more."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.types import CELLS, ROUTES, PrivacyStatement, Vote
from edge.vision.privacy import Policy, discrete_laplace, flush_day, flush_due, release, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge.vision.privacy import Accumulators

NOTHING_HELD = {route: dict.fromkeys(CELLS, (0, 0)) for route in ROUTES}
votes = st.lists(st.builds(Vote, route=st.sampled_from(ROUTES), cell=st.sampled_from(CELLS)), max_size=40)


def chi_square(drawn: Counter[int], epsilon: Fraction, reach: int) -> tuple[float, int]:
    """Pearson's statistic on -reach … reach with the tails pooled, and its degrees of freedom."""
    n = drawn.total()
    q = math.exp(-float(epsilon))
    expected = {x: n * (1 - q) / (1 + q) * q ** abs(x) for x in range(-reach, reach + 1)}
    tail = n * q ** (reach + 1) / (1 + q)
    below = sum(c for x, c in drawn.items() if x < -reach)
    above = sum(c for x, c in drawn.items() if x > reach)
    value = sum((drawn[x] - e) ** 2 / e for x, e in expected.items())
    value += (below - tail) ** 2 / tail + (above - tail) ** 2 / tail
    return value, len(expected) + 1


@pytest.mark.parametrize(
    ("epsilon", "reach"), [(Fraction(1), 6), (Fraction(1, 3), 12), (Fraction(7, 5), 4), (Fraction(3), 2)]
)
def test_distribution(epsilon: Fraction, reach: int) -> None:
    source = random.Random(20261121)  # noqa: S311 - a fixed seed
    drawn = Counter(discrete_laplace(epsilon, source.randrange) for _ in range(20_000))
    value, freedom = chi_square(drawn, epsilon, reach)
    # Wilson and Hilferty's approximation of the 0.9999 quantile.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3
    assert value < limit


def test_the_check_can_fail() -> None:
    """The same statistic catches a zero that is twice as likely, the sampler's classic mistake."""

    def broken(source: random.Random) -> int:
        magnitude = abs(discrete_laplace(Fraction(1), source.randrange))
        return magnitude if source.random() < 0.5 else -magnitude

    source = random.Random(1)  # noqa: S311 - a fixed seed
    drawn = Counter(broken(source) for _ in range(20_000))
    drawn[0] *= 2
    assert chi_square(drawn, Fraction(1), 6)[0] > 1000


class _Asked(Exception):
    """The sampler wants a uniform integer below n."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n = n


def enumerated(epsilon: Fraction, floor: Fraction) -> tuple[dict[int, Fraction], Fraction]:
    """Follow every path of decisions likelier than `floor`: exact mass per value, mass not followed."""
    mass: dict[int, Fraction] = {}
    lost = Fraction(0)
    paths: list[tuple[tuple[int, ...], Fraction]] = [((), Fraction(1))]
    while paths:
        path, p = paths.pop()
        if p < floor:
            lost += p
            continue
        decided = iter(path)

        def randbelow(n: int, decided: Iterator[int] = decided) -> int:
            for choice in decided:
                return choice
            raise _Asked(n)

        try:
            value = discrete_laplace(epsilon, randbelow)
        except _Asked as asked:
            paths += [((*path, choice), p / asked.n) for choice in range(asked.n)]
        else:
            mass[value] = mass.get(value, Fraction(0)) + p
    return mass, lost


@pytest.mark.parametrize("epsilon", [Fraction(1), Fraction(1, 2), Fraction(3, 2)])
def test_exact_probabilities_by_enumeration(epsilon: Fraction) -> None:
    mass, lost = enumerated(epsilon, Fraction(1, 20_000))
    q = math.exp(-float(epsilon))
    for x in range(-2, 3):
        truth = (1 - q) / (1 + q) * q ** abs(x)
        assert float(mass[x]) <= truth <= float(mass[x] + lost)
        assert mass[x] == mass[-x]
    assert lost < Fraction(1, 2)
    assert sum(mass.values()) + lost == 1


def test_epsilon_must_be_positive() -> None:
    for epsilon in (Fraction(0), Fraction(-1)):
        with pytest.raises(ValueError, match="positive"):
            discrete_laplace(epsilon)


def test_only_integers_are_asked_for_and_returned() -> None:
    source = random.Random(4)  # noqa: S311 - a fixed seed

    def randbelow(n: int) -> int:
        assert type(n) is int
        assert n > 0
        return source.randrange(n)

    assert all(type(discrete_laplace(Fraction(0.1), randbelow)) is int for _ in range(200))


def noise(values: list[int]) -> Callable[[Fraction], int]:
    """Draws these in turn, for ever, and counts."""

    def draw(_: Fraction) -> int:
        values.append(values[0])
        return values.pop(0)

    return draw


def policy(kind: Literal["discrete-laplace", "off"] = "discrete-laplace", min_count: int = 10) -> Policy:
    """The default policy but for the arguments."""
    return Policy(kind, Fraction(1), min_count)


def test_one_draw_for_each_of_sixteen_cells_whatever_was_seen() -> None:
    for seen in ([], [Vote("masked", "sad")] * 100):
        asked: list[Fraction] = []

        def draw(epsilon: Fraction, asked: list[Fraction] = asked) -> int:
            asked.append(epsilon)
            return 0

        release(tally(seen), {}, policy(), flush=False, draw=draw)
        assert asked == [Fraction(1)] * 16


@settings(deadline=None)
@given(
    st.lists(votes, min_size=1, max_size=6),
    st.lists(st.integers(-8, 8), min_size=1, max_size=9),
    st.integers(0, 30),
)
def test_what_is_released_adds_up(windows: list[list[Vote]], drawn: list[int], min_count: int) -> None:
    """Over any day: released + held = votes + noise, cell by cell, and the flush leaves nothing behind."""
    given_out: list[int] = []
    draw = noise(list(drawn))

    def noted(epsilon: Fraction) -> int:
        given_out.append(draw(epsilon))
        return given_out[-1]

    held: Accumulators = {}
    total, told_draws = 0, 0
    for number, seen in enumerate(windows, 1):
        flush = number == len(windows)
        released, draws, held = release(tally(seen), held, policy(min_count=min_count), flush=flush, draw=noted)
        for route in ROUTES:
            for cell in CELLS:
                value = released[route][cell]
                if value is None:
                    assert held[route][cell][0] < min_count
                    assert draws[route][cell] == 0
                    continue
                assert flush or value >= min_count
                assert 1 <= draws[route][cell] <= number
                assert held[route][cell] == (0, 0)
                total += value
                told_draws += draws[route][cell]
    assert held == NOTHING_HELD
    assert total == sum(map(len, windows)) + sum(given_out)
    assert told_draws == len(given_out) == 16 * len(windows)


@given(votes)
def test_exact_when_both_are_off(seen: list[Vote]) -> None:
    chosen = policy("off", 1)
    released, draws, held = release(tally(seen), {}, chosen, flush=False)
    assert released == tally(seen)
    assert draws == {route: dict.fromkeys(CELLS, 0) for route in ROUTES}
    assert held == NOTHING_HELD
    assert chosen.statement() == PrivacyStatement("none", None, 1)


def test_threshold_without_noise_accumulates_and_says_none() -> None:
    chosen = policy("off", 3)
    held: Accumulators = {}
    seen = []
    for _ in range(3):
        released, draws, held = release(tally([Vote("masked", "fear")]), held, chosen, flush=False)
        seen.append(released["masked"]["fear"])
        assert draws["masked"]["fear"] == 0
    assert seen == [None, None, 3]
    assert chosen.statement() == PrivacyStatement("none", None, 3)


def test_flush_releases_negative_values() -> None:
    released, draws, _ = release(tally([]), {}, policy(), flush=True, draw=lambda _: -4)
    assert released["unmasked"]["happy"] == -4
    assert draws["masked"]["sad"] == 1


def test_a_window_without_votes_draws_nothing_and_releases_nothing_but_a_flush() -> None:
    def never(_: Fraction) -> int:
        pytest.fail("noise was drawn for a window that nobody could be in")

    held = {
        "masked": NOTHING_HELD["masked"] | {"sad": (-3, 2)},
        "unmasked": NOTHING_HELD["unmasked"] | {"happy": (9, 1)},
    }
    released, draws, kept = release(None, held, policy(), flush=False, draw=never)
    assert kept == held
    assert {v for row in released.values() for v in row.values()} == {None}
    released, draws, kept = release(None, held, policy(), flush=True, draw=never)
    assert kept == NOTHING_HELD
    assert {(r, c): v for r, row in released.items() for c, v in row.items() if v is not None} == {
        ("masked", "sad"): -3,
        ("unmasked", "happy"): 9,
    }
    assert (draws["masked"]["sad"], draws["masked"]["fear"]) == (2, 0)
    released, _, _ = release(None, {}, policy("off", 1), flush=True)
    assert released["masked"]["sad"] is None, "unknown, not zero, where counts are exact too"


def test_a_daily_budget_is_spent_exactly_and_bounds_the_day() -> None:
    chosen = Policy("discrete-laplace", 0.1, 10, 0.3)
    spent, windows = Fraction(0), 0
    while chosen.affords(spent):
        spent, windows = spent + chosen.cost, windows + 1
    assert (windows, spent) == (3, Fraction(3, 10)), "floats would have stopped at 0.30000000000000004"
    assert chosen.day_bound(3600) == Fraction(3, 10)
    assert policy().day_bound(7200) == 12
    assert Policy("discrete-laplace", 1, 10, 2.5).day_bound(7200) == 2
    assert policy("off").day_bound(7200) == 0
    assert policy("off").affords(Fraction(99))


def test_policy_takes_a_float_by_its_decimal_and_refuses_nonsense() -> None:
    assert Policy("discrete-laplace", 0.1, 1).epsilon == Fraction(1, 10)
    assert policy().statement() == PrivacyStatement("discrete-laplace", 1.0, 10)
    assert policy().key != policy("off").key != policy("off", 2).key
    with pytest.raises(ValueError, match="positive"):
        Policy("discrete-laplace", Fraction(0), 1)


def test_flush_follows_the_date_of_the_windows_end_both_ways() -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    assert flush_day(midnight) == flush_day(midnight - timedelta(milliseconds=300)) == "2026-11-22"
    assert not flush_due(midnight, None)
    assert flush_due(midnight, "2026-11-21")
    assert not flush_due(midnight + timedelta(hours=1), "2026-11-22")
    assert flush_due(midnight - timedelta(days=365), "2026-11-22")
