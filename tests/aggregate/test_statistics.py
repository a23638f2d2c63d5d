"""Bands: the contract's and the recipe's, written down a second time; their properties; their bits."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edge_aggregate.calibration import ROLES, Table, correct, read_manifest
from edge_aggregate.statistics import Band, Part, as_read, changed, city, corrected, counted, discoveries
from edge_aggregate.statistics.parts import CLASSES, draw_variance
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    Key = tuple[str, str]

MANIFEST = Path(__file__).with_name("frozen_manifest.json")
"""That of `fer-2026.12`: bits are held on a table that no new bundle changes."""
TABLES = read_manifest(MANIFEST)
BARE, MASK = (t.digest for t in TABLES)
NEXT = "sha256:" + "1" * 64
UNKNOWN = "sha256:" + "f" * 64


def another(table: Table, seed: int) -> Table:
    """A later model of the same role: a table drawn anew."""
    rng = np.random.default_rng(seed)
    rows = [rng.multinomial(sum(row), np.array(row) / sum(row)).tolist() for row in table.counts]
    return replace(table, digest=NEXT, counts=tuple(map(tuple, rows)))


KNOWN = [*TABLES, *(another(t, i) for i, t in enumerate(TABLES))]
CORRECTIONS = {t.key: correct(t) for t in KNOWN}
Z = 1.959963984540054

LOBBY = Part(BARE, MASK, 1.0, (20, 3, 8, 130, 290, 61, 22, 60, 2, -3, 4, 31, 42, 9, 1, 12), (12,) * 16)
HALL = Part(BARE, MASK, 0.5, (11, -4, 3, 55, 80, 12, 15, 19, 0, 1, -6, 12, 22, 4, 3, 5), (9, 4) * 8)
LATER = Part(NEXT, NEXT, 1.0, (14, 2, 6, 99, 201, 40, 20, 41, 3, 2, 4, 18, 30, 11, 0, 8), (12,) * 16)


def rates(table: Table) -> Any:  # noqa: ANN401 - numpy's
    counts = np.array(table.counts) + 0.1
    return counts / counts.sum(1, keepdims=True)


def recipe(sites: list[tuple[float, list[Part]]], tables: list[Table]) -> tuple[float, float, float]:
    """(index, low, high) of the weighted mean, by the recipe's four steps in numpy. Every site's n is above 0."""
    weights, total, variance, x_sum = {}, 0.0, 0.0, dict[tuple[str, str], Any]()
    for table in tables:
        p = rates(table)
        g = np.diag(1 / p.mean(0))
        weights[table.key] = g @ p.T @ np.linalg.inv(p @ g @ p.T)
    for a, parts in sites:
        n = sum(sum(p.cells) for p in parts)
        rows = []
        for role, shift in zip(ROLES, (0, 8), strict=True):
            digests = {str((p.unmasked, p.masked)[shift // 8]) for p in parts}
            for digest in digests:
                mine = [p for p in parts if (p.unmasked, p.masked)[shift // 8] == digest]
                y = sum(np.array(p.cells[shift : shift + 8]) for p in mine)
                q = {p.epsilon: math.exp(-p.epsilon) if p.epsilon else 0.0 for p in mine}
                noise = sum(
                    2 * q[p.epsilon] / (1 - q[p.epsilon]) ** 2 * np.array(p.draws[shift : shift + 8]) for p in mine
                )
                rows.append(((role, digest), y, noise))
        value = sum((y @ weights[k])[3] for k, y, _ in rows) / n
        h = min(max(value, 0), 1)
        total += a * value
        if len(sites) > 1:  # E[H/N] by Taylor: H/N (1 + Var N / N²) - Cov(H, N) / N²
            total -= a * sum((s * (value - weights[k][:, 3])).sum() for k, _, s in rows) / n**2
        variance += a**2 * sum(((np.maximum(y, 0) + s) * (weights[k][:, 3] - h) ** 2).sum() for k, y, s in rows) / n**2
        for k, y, _ in rows:
            x_sum[k] = x_sum.get(k, 0) + a * y / n
    for table in tables:
        if table.key in x_sum:
            y, w, p = x_sum[table.key], weights[table.key], rates(table)
            x = np.maximum(y @ w, 0)
            x *= y.sum() / x.sum()
            spread = (p * w[:, 3] ** 2).sum(1) - (p * w[:, 3]).sum(1) ** 2
            variance += (x**2 * spread / np.array(table.counts).sum(1)).sum()
    half = Z * math.sqrt(variance)
    return min(max(total, 0), 1), max(total - half, 0), min(total + half, 1)


def close(band: Band | None, wanted: tuple[float, float, float]) -> bool:
    return band is not None and (band.index, band.low, band.high) == pytest.approx(wanted, abs=1e-9)


def test_the_index_leaves_the_uncertain_out() -> None:
    assert counted([LOBBY]) == (161, sum(LOBBY.cells) - 60 - 12)
    assert counted([LOBBY, HALL]) == (161 + 67, counted([LOBBY])[1] + counted([HALL])[1])
    assert counted([]) == (0, 0)


def test_the_band_as_read_is_the_contracts() -> None:
    for parts in ([LOBBY], [HALL], [LOBBY, HALL]):
        happy, n = counted(parts)
        p = min(max(happy / n, 1 / (n + 2)), 1 - 1 / (n + 2))
        noise = 0.0
        for part in parts:
            q = math.exp(-part.epsilon)  # type: ignore[operator]
            k_happy = part.draws[3] + part.draws[11]
            k_all = sum(part.draws) - part.draws[7] - part.draws[15]
            noise += 2 * q / (1 - q) ** 2 * (k_happy * (1 - 2 * p) + k_all * p**2)
        v = p * (1 - p) / n + noise / n**2
        m = p * (1 - p) / v
        centre = (p + Z**2 / 2 / m) / (1 + Z**2 / m)
        half = Z / (1 + Z**2 / m) * math.sqrt(p * (1 - p) / m + Z**2 / 4 / m**2)
        assert close(as_read(parts), (happy / n, centre - half, centre + half))


def test_what_cells_hold_back_widens_both_bands_by_a_third_of_the_squared_threshold() -> None:
    happy, n = counted([LOBBY])
    p = happy / n
    held = [100 * (i % 3) for i in range(16)]
    more = sum(held[i] / 3 * ((i in (3, 11)) - p) ** 2 for i in range(16) if i not in (7, 15)) / n**2
    bare, wide = as_read([LOBBY]), as_read([LOBBY], held)
    assert bare is not None
    assert wide is not None
    # Wilson's half width, solved for the variance that is in it.
    assert variance_in(wide) - variance_in(bare) == pytest.approx(more, rel=1e-9)
    total = sum(LOBBY.cells)
    h = corrected([LOBBY], CORRECTIONS)
    wider = corrected([LOBBY], CORRECTIONS, held)
    assert h is not None
    assert wider is not None
    weights = [w for key in ((ROLES[0], BARE), (ROLES[1], MASK)) for w in CORRECTIONS[key].happy]
    added = sum(k / 3 * (w - h.index) ** 2 for k, w in zip(held, weights, strict=True)) / total**2
    assert ((wider.high - wider.index) / Z) ** 2 - ((h.high - h.index) / Z) ** 2 == pytest.approx(added, rel=1e-9)


def variance_in(band: Band) -> float:
    """What variance a Wilson band has been made from: its centre is (p + z²/2n)/(1 + z²/n)."""
    centre = (band.low + band.high) / 2
    # centre (1 + t) = p + t/2 with t = z²/n
    t = (band.index - centre) / (centre - 0.5)
    return band.index * (1 - band.index) * t / Z**2


@pytest.mark.parametrize("parts", [[LOBBY], [HALL], [LOBBY, HALL], [LOBBY, LATER], [LOBBY, HALL, LATER, LATER]])
def test_the_corrected_band_is_the_recipes(parts: list[Part]) -> None:
    assert close(corrected(parts, CORRECTIONS), recipe([(1.0, parts)], KNOWN))


def test_a_city_adds_the_tables_error_before_it_is_squared() -> None:
    sites: list[tuple[Fraction | int, list[Part]]] = [(3, [LOBBY]), (Fraction(1, 2), [HALL]), (1, [LATER, LOBBY])]
    found = city(sites, CORRECTIONS)
    assert found.sites == 3
    assert close(found.corrected, recipe([(float(a) / 4.5, parts) for a, parts in sites], KNOWN))
    # Fifty places alike: what each has for itself goes down with their number, the table's error stays.
    fifty, one = city([(1, [LOBBY])] * 50, CORRECTIONS).corrected, corrected([LOBBY], CORRECTIONS)
    assert fifty is not None
    assert one is not None
    sure = {key: replace(c, spread=(0.0,) * 7) for key, c in CORRECTIONS.items()}
    bare = corrected([LOBBY], sure)
    assert bare is not None
    table = (one.high - one.index) ** 2 - (bare.high - bare.index) ** 2
    assert (fifty.high - fifty.index) ** 2 == pytest.approx(table + (bare.high - bare.index) ** 2 / 50, rel=1e-9)


def test_a_citys_index_as_read_is_the_mean_of_its_places_and_its_band_knows_that_noise_leans() -> None:
    quiet = replace(LOBBY, cells=tuple(v // 8 for v in LOBBY.cells))
    found, (happy, n) = city([(1, [quiet])] * 50, CORRECTIONS), counted([quiet])
    assert found.read is not None
    assert found.read.index == pytest.approx(happy / n, abs=1e-12)
    noise = draw_variance(1.0) * 12
    lean = (happy / n * 14 * noise - 2 * noise) / n**2
    assert lean > 0.005
    middle, half = (found.read.low + found.read.high) / 2, (found.read.high - found.read.low) / 2
    assert middle == pytest.approx(happy / n - lean, abs=half / 20)  # Wilson's own centre lies a little nearer to 1/2


def test_a_city_of_one_is_the_place_to_the_last_bit() -> None:
    held = tuple(range(0, 1600, 100))
    for parts in ([LOBBY], [HALL, LATER]):
        for kept in ((), held):
            found = city([(7, parts)], CORRECTIONS, [kept])
            assert (found.read, found.corrected) == (as_read(parts, kept), corrected(parts, CORRECTIONS, kept))


@pytest.mark.parametrize("noise", [0, 1, 3])
def test_a_place_where_nobody_was_leaves_its_weight_to_the_others(noise: int) -> None:
    empty = replace(LOBBY, cells=(noise,) * 16)
    found = city([(1, [LOBBY]), (5, [empty]), (1, [HALL]), (9, [])], CORRECTIONS)
    assert found == city([(1, [LOBBY]), (1, [HALL])], CORRECTIONS)
    assert (found.sites, city([(1, [empty])], CORRECTIONS).read, city([], CORRECTIONS).corrected) == (2, None, None)


@pytest.mark.parametrize("bad", [0, -1, Fraction(-1, 3)])
def test_a_weight_is_above_nothing(bad: Fraction | int) -> None:
    with pytest.raises(ValueError, match="weight"):
        city([(1, [LOBBY]), (bad, [HALL])], CORRECTIONS)


def test_sums_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="15 cells"):
        replace(LOBBY, cells=(1,) * 15)
    with pytest.raises(ValueError, match="8 held"):
        as_read([LOBBY], (1,) * 8)
    with pytest.raises(ValueError, match="held sums of 1"):
        city([(1, [LOBBY]), (1, [HALL])], CORRECTIONS, [()])


def test_an_unknown_model_that_has_counted_leaves_no_corrected_figure() -> None:
    strange = replace(LOBBY, masked=UNKNOWN)
    assert as_read([strange]) == as_read([LOBBY])
    assert corrected([strange], CORRECTIONS) is None
    assert corrected([LOBBY, strange], CORRECTIONS) is None
    assert city([(1, [LOBBY]), (1, [strange])], CORRECTIONS).corrected is None
    change = changed([LOBBY], [strange], CORRECTIONS)
    assert change is not None
    assert change.corrected is None
    assert corrected([LOBBY], {}) is None
    # A hash is known for a role: the bare faces' table says nothing of masked ones.
    assert corrected([replace(LOBBY, masked=BARE)], CORRECTIONS) is None
    only_noise = replace(strange, cells=(*LOBBY.cells[:8], *(0,) * 8))
    assert corrected([only_noise], CORRECTIONS) is None
    silent = replace(only_noise, draws=(*LOBBY.draws[:8], *(0,) * 8))
    assert corrected([silent], CORRECTIONS) == corrected([replace(silent, masked=MASK)], CORRECTIONS)
    assert corrected([silent], CORRECTIONS, (100,) * 16) is None


def test_the_row_that_no_model_fills_is_noise_and_left_out_of_the_corrected_share() -> None:
    single = replace(LOBBY, masked=None)
    alone = Part(BARE, MASK, 1.0, (*LOBBY.cells[:8], *(0,) * 8), (*LOBBY.draws[:8], *(0,) * 8))
    assert corrected([single], CORRECTIONS) == corrected([alone], CORRECTIONS) is not None
    assert corrected([replace(single, epsilon=None, draws=(0,) * 16)], CORRECTIONS) is None
    assert corrected([replace(single, unmasked=None)], CORRECTIONS) is None


def test_votes_in_one_cell_alone_are_not_certain() -> None:
    for cell in CLASSES:
        exact = Part(BARE, MASK, None, tuple(45 * (i == cell) for i in range(16)), (0,) * 16)
        found = corrected([exact], CORRECTIONS)
        assert found is not None
        weight = (*CORRECTIONS[ROLES[0], BARE].happy, *CORRECTIONS[ROLES[1], MASK].happy)[cell]
        assert not 0 < weight < 1 or found.high - found.low > 0.03
        change = changed([exact], [exact], CORRECTIONS)
        assert change is not None
        assert change.corrected is not None
        assert change.corrected.p == change.read.p == 1.0


def test_a_change_of_what_was_read_has_the_variance_of_no_change() -> None:
    found = changed([LOBBY], [HALL], CORRECTIONS)
    assert found is not None
    (h1, n1), (h2, n2) = counted([LOBBY]), counted([HALL])
    p, v = (h1 + h2) / (n1 + n2), 0.0
    for part, n in ((LOBBY, n1), (HALL, n2)):
        k_all = sum(part.draws) - part.draws[7] - part.draws[15]
        noise = draw_variance(part.epsilon) * ((part.draws[3] + part.draws[11]) * (1 - 2 * p) + k_all * p**2)
        v += p * (1 - p) / n + noise / n**2
    by = h2 / n2 - h1 / n1
    wanted = (by, by - Z * math.sqrt(v), by + Z * math.sqrt(v), math.erfc(abs(by) / math.sqrt(2 * v)))
    assert (found.read.by, found.read.low, found.read.high, found.read.p) == pytest.approx(wanted, abs=1e-9)


def test_a_tables_error_is_no_reason_for_a_change() -> None:
    """The same crowd before and after: a table however small says the same of both."""
    rough = {
        t.key: correct(replace(t, counts=tuple(tuple(-(-c // 9) for c in row) for row in t.counts))) for t in KNOWN
    }
    fine = {key: replace(c, spread=(0.0,) * 7) for key, c in rough.items()}
    here, there = (changed([LOBBY], [LOBBY], tables) for tables in (rough, fine))
    assert here == there
    # Another model after: its error is one more.
    other, sure = (changed([LOBBY], [LATER], tables) for tables in (rough, fine))
    assert other is not None
    assert other.corrected is not None
    assert sure is not None
    assert sure.corrected is not None
    assert other.corrected.high - other.corrected.low > 1.1 * (sure.corrected.high - sure.corrected.low)


def test_few_false_discoveries() -> None:
    # Benjamini and Hochberg's own example: fifteen tests, four are discoveries at 5 %.
    example = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    example += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert discoveries(example) == [True] * 4 + [False] * 11
    assert discoveries([*reversed(example), None]) == [False] * 11 + [True] * 4 + [False]
    assert discoveries([]) == []
    assert discoveries([None]) == [False]
    assert discoveries([0.04, 0.045, 0.05]) == [True] * 3  # the last passes, and so do all before it
    with pytest.raises(ValueError, match="between 0 and 1"):
        discoveries([0.1], 1.0)


CELL = st.integers(-1_000, 100_000)
PARTS = st.lists(
    st.builds(
        Part,
        st.sampled_from((BARE, NEXT)),
        st.sampled_from((MASK, NEXT)),
        st.sampled_from((None, 0.25, 1.0, 1.1)),
        st.tuples(*[CELL] * 16),
        st.tuples(*[st.integers(0, 10_000)] * 16),
    ),
    max_size=5,
)
HELD = st.one_of(st.just(()), st.tuples(*[st.integers(0, 10_000)] * 16))


@given(PARTS, HELD)
def test_a_band_holds_its_index_and_lies_between_none_and_all(parts: list[Part], held: tuple[int, ...]) -> None:
    read = as_read(parts, held)
    fixed = corrected(parts, CORRECTIONS, held)
    assert (read is None) == (counted(parts)[1] <= 0)
    assert (fixed is None) == (sum(sum(p.cells) for p in parts) <= 0)
    for band in (read, fixed):
        assert band is None or 0 <= band.low <= band.index <= band.high <= 1
    change = changed(parts, [LOBBY], CORRECTIONS, (held, ()))
    assert (change is None) == (read is None)
    for one in (change and change.read, change and change.corrected):
        assert not one or (-1 <= one.low <= one.by <= one.high <= 1 and 0 <= one.p <= 1)


@given(PARTS, HELD, st.randoms(use_true_random=False))
def test_the_order_of_the_parts_changes_no_bit(parts: list[Part], held: tuple[int, ...], random: Any) -> None:  # noqa: ANN401
    mixed = list(parts)
    random.shuffle(mixed)
    assert figures(mixed, held) == figures(parts, held)
    sites = [(i + 1, [part]) for i, part in enumerate(parts)]
    others = list(sites)
    random.shuffle(others)
    assert repr(city(others, CORRECTIONS)) == repr(city(sites, CORRECTIONS))


@given(PARTS, HELD, st.tuples(*[CELL] * 16), st.integers(0, 4))
def test_sums_may_come_in_pieces(parts: list[Part], held: tuple[int, ...], piece: tuple[int, ...], which: int) -> None:
    if which >= len(parts):
        return
    whole = parts[which]
    rest = tuple(a - b for a, b in zip(whole.cells, piece, strict=True))
    halves = [
        replace(whole, cells=piece, draws=tuple(k // 3 for k in whole.draws)),
        replace(whole, cells=rest, draws=tuple(k - k // 3 for k in whole.draws)),
    ]
    assert figures([*parts[:which], *halves, *parts[which + 1 :]], held) == figures(parts, held)


def figures(parts: Sequence[Part], held: tuple[int, ...]) -> str:
    """Everything, to the last bit."""
    both = as_read(parts, held), corrected(parts, CORRECTIONS, held)
    return repr((*both, changed(parts, [HALL], CORRECTIONS, (held, ())), changed([HALL], parts, CORRECTIONS)))


def test_the_bits_are_these() -> None:
    """What any machine gives. A change here is a change of published figures: say so in the changelog."""
    assert repr(as_read([LOBBY, LATER])) == GOLDEN[0]
    assert repr(corrected([LOBBY, HALL, LATER], CORRECTIONS)) == GOLDEN[1]
    assert repr(city([(3, [LOBBY]), (2, [HALL])], CORRECTIONS)) == GOLDEN[2]
    assert repr(changed([LOBBY], [HALL], CORRECTIONS)) == GOLDEN[3]
    assert repr(draw_variance(1.0)) == GOLDEN[4]


GOLDEN = (
    "Band(index=0.25981308411214954, low=0.22988426404306925, high=0.2921601557899906)",
    "Band(index=0.20575928845001357, low=0.16431049566940914, high=0.247208081230618)",
    (
        "CityBands(read=Band(index=0.2846526054590571, low=0.23450313386727267, high=0.33696770255508396), "
        "corrected=Band(index=0.21540051926658763, low=0.14930968192869776, high=0.2814913566044775), sites=2)"
    ),
    (
        "Change(read=Difference(by=0.0624379652605459, low=-0.05122401948327329, high=0.1760999500043651, "
        "p=0.281628843706), corrected=Difference(by=0.04420187420806468, low=-0.10655220439338936, "
        "high=0.19495595280951872, p=0.565513445327))"
    ),
    "1.8413471884155845",
)
