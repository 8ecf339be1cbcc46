"""The mixture: never ahead of its answers, the same in any pieces, and no worse than the best it is made of."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindsight.errors import ModelBroken, SettingRefused
from hindsight.inference import mixture
from hindsight.inference.gate import EQUAL, LOGIT_SCALE, MIXTURE, NOBODY
from hindsight.inference.gate_state import GateState
from hindsight.inference.labels import PENDING
from hindsight.inference.mixture import CONTEXT, Closes, Feature, GateRule, Mixed, mix

FIRST_ROW = 28_000_000
FOUR = ("transformer", "lstm", "cnn", "fusion")
BARE = GateRule(context=())
WEATHER = (Feature(name="weather", centre=0.0, scale=1.0),)
LOOKED_AT = tuple(feature.name for feature in CONTEXT)
QUICK = replace(GateRule(), skill_half_life=50, trailing_half_life=60, least=5, gate_half_life=200, patience=12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def loss(probability: np.ndarray, up: np.ndarray) -> np.ndarray:
    return -np.log(np.where(up == 1, probability, 1 - probability))


def at_once(buy: np.ndarray, up: np.ndarray, context: np.ndarray | None = None) -> Closes:
    """Closes without a gap, each answered by the next."""
    rows = FIRST_ROW + np.arange(len(up))
    nothing = np.empty((len(up), 0), np.float32)
    return Closes(
        rows=rows,
        buy=buy.astype(np.float32),
        context=nothing if context is None else context.astype(np.float32),
        up=up.astype(np.int8),
        settled=rows + 1,
    )


def ragged(count: int, seed: int, models: int = 4) -> Closes:
    """Closes with gaps, late, missing and useless answers, silent models and unknown features."""
    chance = np.random.default_rng(seed)
    rows = FIRST_ROW + np.cumsum(1 + (chance.random(count) < 0.05) * chance.integers(0, 30, count))
    drift = chance.normal(size=count) * 0.5
    buy = sigmoid(drift[:, None] * np.linspace(1, 0, models) + chance.normal(size=(count, models)) * 0.3)
    buy[chance.random((count, models)) < 0.2] = np.nan
    buy[chance.random(count) < 0.05] = np.nan
    buy[chance.random((count, models)) < 0.01] = 1.0
    context = chance.normal(size=(count, len(CONTEXT))) + np.array([feature.centre for feature in CONTEXT])
    context[chance.random(context.shape) < 0.2] = np.nan
    late = np.where(chance.random(count) < 0.3, chance.integers(1, 20, count), 1)
    up = (chance.random(count) < sigmoid(drift)).astype(np.int8)
    up[chance.random(count) < 0.05] = -1
    settled = np.where(chance.random(count) < 0.02, PENDING, rows + late)
    return Closes(
        rows=rows, buy=buy.astype(np.float32), context=context.astype(np.float32), up=up, settled=settled
    )  # fmt: skip


class Trail(NamedTuple):
    """How one has done beside the mixture, on the same closes; `noise` is the standard error of the difference."""

    closes: float  # discounted
    loss: float
    mixture_loss: float
    noise: float


def trails(state: GateState) -> dict[str, Trail]:
    """Of each model and, last, the equal average; without those never compared."""
    found = {}
    for name, sums in zip((*state.models, "equal"), state.as_arrays()[0]["trail"].tolist(), strict=True):
        closes, squared, more, squares, lost = sums
        if closes:
            share, spread = squared / closes**2, max(squares / closes - (more / closes) ** 2, 0.0)
            noise = np.sqrt(spread * share / (1 - share)) if share < 1 else np.inf
            found[name] = Trail(closes, lost / closes, (lost + more) / closes, noise)
    return found


def part(closes: Closes, chosen: slice | np.ndarray) -> Closes:
    fields = ("rows", "buy", "context", "up", "settled")
    return Closes(**{name: getattr(closes, name)[chosen] for name in fields})


def as_known_at(closes: Closes, row: int) -> Closes:
    """Without the answers that came later than the close of `row`."""
    known = closes.settled <= row
    return replace(closes, up=np.where(known, closes.up, -1), settled=np.where(known, closes.settled, PENDING))


def mixed_alone(buy: np.ndarray, up: np.ndarray, rule: GateRule, context: np.ndarray | None = None) -> Mixed:
    models = [f"m{number}" for number in range(buy.shape[1])]
    state = GateState.initial(models, [feature.name for feature in rule.context])
    return mix(state, at_once(buy, up, context), rule)[1]


def assert_same(found: Mixed, expected: Mixed, chosen: slice | np.ndarray = slice(None)) -> None:
    for name in Mixed.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[chosen], err_msg=name)


# Time ------------------------------------------------------------------------------------------------------------


def test_before_any_answer_the_mixture_is_the_equal_average():
    closes = replace(ragged(100, 1), settled=np.full(100, PENDING))
    _, mixed = mix(GateState.initial(FOUR, LOOKED_AT), closes, GateRule())
    spoke = ~np.isnan(closes.buy).all(axis=1)
    assert spoke.sum() < 100
    expected = np.nanmean(np.clip(closes.buy[spoke].astype(np.float64), 1e-6, 1 - 1e-6), axis=1)
    np.testing.assert_allclose(mixed.probability[spoke], expected, rtol=1e-12)
    assert (mixed.used[spoke] == MIXTURE).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_absurd_answers_change_nothing_up_to_the_close_at_which_they_are_known(seed: int):
    """Nor does anything else that comes later. An answer is used one close after it was known, not at it."""
    closes = ragged(300, seed)
    start = GateState.initial(FOUR, LOOKED_AT)
    _, expected = mix(start, closes, QUICK)
    changed_later = 0
    for cut in range(0, 300, 7):
        row = closes.rows[cut]
        unknown, later = closes.settled >= row, closes.rows > row
        absurd = replace(
            closes,
            up=np.where(unknown, 1 - np.abs(closes.up), closes.up).astype(np.int8),
            settled=np.where(unknown & (closes.settled < PENDING), closes.settled + 1, closes.settled),
            buy=np.where(later[:, None], np.float32(0.999), closes.buy),
            context=np.where(later[:, None], np.float32(1e30), closes.context),
        )
        found = mix(start, absurd, QUICK)[1]
        assert_same(part_of(found, slice(cut + 1)), expected, slice(cut + 1))
        only_answers = replace(closes, up=absurd.up)
        found = mix(start, only_answers, QUICK)[1]
        assert_same(part_of(found, slice(cut + 1)), expected, slice(cut + 1))
        changed_later += not np.array_equal(found.probability, expected.probability, equal_nan=True)
    assert changed_later > 30, "the answers are used in the end"


def part_of(mixed: Mixed, chosen: slice) -> Mixed:
    return Mixed(**{name: getattr(mixed, name)[chosen] for name in Mixed.__slots__})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 5), cuts=st.sets(st.integers(1, 249), max_size=40))
def test_any_pieces_are_the_whole_bit_for_bit_through_bytes(seed: int, cuts: set[int]):
    """Each piece knows only the answers of its time; the state at its end is that of whoever knew them all."""
    closes = ragged(250, seed)
    end, whole = mix(GateState.initial(FOUR, LOOKED_AT), closes, QUICK)
    state = GateState.initial(FOUR, LOOKED_AT)
    for first, last in pairwise([0, *sorted(cuts), 250]):
        known = part(as_known_at(closes, closes.rows[last - 1]), slice(last))
        needed = part(known, known.rows >= state.needs_from)
        state, found = mix(GateState.from_bytes(state.to_bytes()), needed, QUICK)
        assert_same(found, whole, slice(first, last))
        assert state == mix(GateState.initial(FOUR, LOOKED_AT), part(closes, slice(last)), QUICK)[0]
    assert state == end
    assert state.to_bytes() == end.to_bytes()


def test_compiled_equals_uncompiled_bit_for_bit():
    count = mixture.COMPILED_FROM + 500
    closes = ragged(count, 8)
    end, compiled = mix(GateState.initial(FOUR, LOOKED_AT), closes, QUICK)
    state, pieces = GateState.initial(FOUR, LOOKED_AT), []
    for last in (700, 701, 1900, count):
        known = part(closes, slice(last))
        state, found = mix(state, part(known, known.rows >= state.needs_from), QUICK)
        assert len(found.rows) < mixture.COMPILED_FROM
        pieces.append(found)
    assert state == end
    joined = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in Mixed.__slots__}
    assert_same(Mixed(**joined), compiled)
    assert set(compiled.used.tolist()) >= {NOBODY, EQUAL, MIXTURE, 0}


def test_a_live_close_does_not_import_numba():
    code = (
        "import sys, numpy as np; from hindsight.inference.mixture import *;"
        "closes = Closes(rows=np.array([5]), buy=np.full((1, 2), 0.6), context=np.empty((1, 0)), up=np.array([-1]),"
        "settled=np.array([6])); _, mixed = mix(GateState.initial('ab', ()), closes, GateRule(context=()));"
        "assert mixed.probability[0] == 0.6; assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_twice_is_once_and_the_passed_state_is_left_as_it_was():
    closes = ragged(120, 3)
    start = GateState.initial(FOUR, LOOKED_AT)
    before = start.to_bytes()
    state, _ = mix(start, closes, QUICK)
    assert start.to_bytes() == before
    again, nothing = mix(state, closes, QUICK)
    assert again == state
    assert (len(nothing.rows), nothing.weights.shape) == (0, (0, 4))


def test_an_answer_that_does_not_come_is_waited_for_as_long_as_patience_says():
    closes = replace(ragged(200, 4), settled=np.full(200, PENDING))
    state, _ = mix(GateState.initial(FOUR, LOOKED_AT), closes, QUICK)
    assert state.last_row == closes.rows[-1]
    spoke = ~np.isnan(closes.buy).all(axis=1)
    expected = closes.rows[spoke & (closes.rows >= closes.rows[-1] - QUICK.patience)]
    np.testing.assert_array_equal(state.as_arrays()[1]["row"], expected)
    assert state.needs_from == expected[0]


def test_an_answer_at_the_end_of_patience_is_learned_from_in_any_pieces_and_a_later_one_in_none():
    chance = np.random.default_rng(12)
    closes = at_once(chance.random((80, 4)), chance.integers(0, 2, 80))
    start, rule = GateState.initial(FOUR, ()), replace(QUICK, context=())
    for late, is_learned in ((rule.patience, True), (rule.patience + 1, False)):
        answered = replace(closes, settled=closes.rows + late)
        end, _ = mix(start, answered, rule)
        assert bool(trails(end)) == is_learned
        state = start
        for last in range(1, 81):
            known = part(answered, slice(last))
            state, _ = mix(state, part(known, known.rows >= state.needs_from), rule)
        assert state == end


# Two roads -------------------------------------------------------------------------------------------------------


def plainly(closes: Closes, rule: GateRule) -> np.ndarray:
    """The mixture at each close, in a page of plain lines, for closes that are answered by the next or not at all."""
    buy = np.clip(closes.buy.astype(float), 1e-6, 1 - 1e-6)
    known = np.isfinite(closes.context)
    centre, scale = (np.array([getattr(each, name) for each in rule.context]) for name in ("centre", "scale"))
    looked = np.where(known, np.clip((np.nan_to_num(closes.context) - centre) / scale, -3, 3), 0)
    context = np.column_stack([np.ones(len(buy)), looked, ~known])
    models = buy.shape[1]
    shared, own = np.array([0.0, 0.0, 1.0]), np.zeros((models, context.shape[1]))
    shared_squares, own_squares = np.zeros(3), np.zeros_like(own)
    gains, squares = np.zeros(models), np.zeros(models)
    forget, unlearn = (0.5 ** (1 / each) for each in (rule.gate_half_life, rule.skill_half_life))
    found, decided = np.full(len(buy), np.nan), {}
    for close, row in enumerate(closes.rows):
        for earlier in [k for k in decided if closes.settled[k] < row]:
            weights, features, here = decided.pop(earlier)
            if closes.up[earlier] < 0:
                continue
            came = np.where(closes.up[earlier] == 1, buy[earlier, here], 1 - buy[earlier, here])
            slope = weights - weights * came / (weights @ came)
            gain = np.log(came) - np.log(0.5)
            gains[here] = gains[here] * unlearn + gain
            squares[here] = squares[here] * unlearn**2 + gain**2
            by_own = np.outer(slope, context[earlier])
            own_squares[here] = own_squares[here] * forget + by_own**2
            own[here] = own[here] * forget - rule.learning_rate * by_own / np.sqrt(own_squares[here] + 5)
            by_shared = slope @ features
            shared_squares = shared_squares * forget + by_shared**2
            start = np.array([0.0, 0.0, 1.0])
            step = rule.learning_rate * by_shared / np.sqrt(shared_squares + 5)
            shared = start + (shared - start) * forget - step
            shared[2] = max(shared[2], 0)
        here = np.flatnonzero(~np.isnan(buy[close]))
        if len(here) == 0:
            continue
        said = buy[close, here]
        logit = np.clip(np.log(said / (1 - said)) / LOGIT_SCALE, -4, 4)
        features = np.column_stack([logit, abs(logit), gains[here] / np.sqrt(squares[here] + 3)])
        score = features @ shared + own[here] @ context[close]
        weights = np.exp(np.maximum(score - score.max(), -7))
        weights /= weights.sum()
        found[close] = weights @ said
        decided[close] = weights, features, here
    return found


def test_the_mixture_is_that_of_a_page_of_plain_lines():
    closes = ragged(400, 6)
    closes = replace(closes, settled=np.where(closes.settled < PENDING, closes.rows + 1, PENDING))
    _, mixed = mix(GateState.initial(FOUR, LOOKED_AT), closes, QUICK)
    np.testing.assert_allclose(mixed.mixture, plainly(closes, QUICK), rtol=1e-9)


def test_what_trails_say_are_discounted_means_over_the_same_closes():
    closes = at_once(ragged(300, 7).buy, ragged(300, 7).up.clip(0))
    state, mixed = mix(GateState.initial(FOUR, ()), closes, replace(QUICK, context=()))
    buy = np.clip(closes.buy.astype(float), 1e-6, 1 - 1e-6)[:298]  # the last two answers were not known before 299
    spoke = ~np.isnan(buy).all(axis=1)
    age = np.cumsum(spoke[::-1])[::-1] - 1
    said = {**dict(zip(FOUR, buy.T, strict=True)), "equal": np.full(298, np.nan)}
    said["equal"][spoke] = np.nanmean(buy[spoke], axis=1)
    found = trails(state)
    for name, trail in found.items():
        there = ~np.isnan(said[name])
        weight = 0.5 ** (age[there] / QUICK.trailing_half_life)
        theirs = loss(said[name][there], closes.up[:298][there])
        ours = loss(mixed.mixture[:298][there], closes.up[:298][there])
        assert trail.closes == pytest.approx(weight.sum(), rel=1e-9)
        assert trail.loss == pytest.approx(np.average(theirs, weights=weight), rel=1e-9)
        assert trail.mixture_loss == pytest.approx(np.average(ours, weights=weight), rel=1e-9)
        spread = np.average((ours - theirs - np.average(ours - theirs, weights=weight)) ** 2, weights=weight)
        share = (weight**2).sum() / weight.sum() ** 2
        assert trail.noise == pytest.approx(np.sqrt(spread / (1 - share) * share), rel=1e-6)
    assert list(found) == [*FOUR, "equal"]


# Who is there ----------------------------------------------------------------------------------------------------


def test_a_model_that_made_no_prediction_has_no_weight_and_the_others_share_it_all():
    closes = ragged(400, 9)
    _, mixed = mix(GateState.initial(FOUR, LOOKED_AT), closes, QUICK)
    silent = np.isnan(closes.buy)
    assert (mixed.weights[silent] == 0).all()
    spoke = ~silent.all(axis=1)
    np.testing.assert_allclose(mixed.weights[spoke].sum(axis=1), 1, rtol=1e-12)
    said = np.nan_to_num(np.clip(closes.buy.astype(float), 1e-6, 1 - 1e-6))
    np.testing.assert_allclose((mixed.weights * said).sum(axis=1)[spoke], mixed.probability[spoke], rtol=1e-12)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_model_that_never_speaks_changes_nothing_to_the_bit(place: int):
    closes = ragged(400, 10)
    others = mix(GateState.initial(FOUR, LOOKED_AT), closes, QUICK)[1]
    silent = np.insert(closes.buy, place, np.nan, axis=1)
    names = [*FOUR[:place], "silent", *FOUR[place:]]
    _, mixed = mix(GateState.initial(names, LOOKED_AT), replace(closes, buy=silent), QUICK)
    np.testing.assert_array_equal(mixed.probability, others.probability)
    np.testing.assert_array_equal(np.delete(mixed.weights, place, axis=1), others.weights)
    assert (mixed.weights[:, place] == 0).all()
    assert mixed.used_names(names) == others.used_names(FOUR)


def test_where_no_model_speaks_nothing_is_said():
    closes = at_once(np.full((50, 3), np.nan), np.ones(50))
    state, mixed = mix(GateState.initial("abc", ()), closes, BARE)
    assert np.isnan(mixed.probability).all()
    assert (mixed.used == NOBODY).all()
    assert (mixed.weights == 0).all()
    assert trails(state) == {}
    assert state.needs_from == closes.rows[-1] + 1


def test_one_model_alone_is_its_own_mixture():
    chance = np.random.default_rng(0)
    buy = chance.random((500, 1))
    mixed = mixed_alone(buy, chance.integers(0, 2, 500), replace(QUICK, context=()))
    np.testing.assert_array_equal(mixed.probability, buy[:, 0].astype(np.float32).astype(float))
    assert (mixed.used == MIXTURE).all()


def test_models_that_all_say_the_same_are_no_reason_to_replace_the_mixture():
    """What they differ by is the rounding of a sum."""
    for said in np.linspace(0.01, 0.99, 50):
        mixed = mixed_alone(np.full((500, 3), said), np.ones(500), BARE)
        assert (mixed.used == MIXTURE).all()


def test_models_keep_what_was_learned_of_them_by_name():
    closes = ragged(300, 11)
    state, _ = mix(GateState.initial(FOUR, LOOKED_AT), part(closes, slice(200)), QUICK)
    turned = (3, 1, 0, 2)
    other = state.for_models([FOUR[place] for place in turned], LOOKED_AT)
    rest = part(closes, closes.rows >= state.needs_from)
    expected = mix(state, rest, QUICK)[1]
    found = mix(other, replace(rest, buy=rest.buy[:, turned]), QUICK)[1]
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-9)
    np.testing.assert_allclose(found.weights, expected.weights[:, turned], rtol=1e-7)

    joined = state.for_models(["new", *FOUR[:2]], LOOKED_AT)
    assert list(trails(joined)) == [*FOUR[:2], "equal"]
    mix(joined, replace(rest, buy=rest.buy[:, [3, 0, 1]]), QUICK)
    assert state.for_models(FOUR, LOOKED_AT) == state
    assert state.for_models(FOUR, ["weather"]) == GateState.initial(FOUR, ["weather"])


# How well it does ------------------------------------------------------------------------------------------------


def informative(chance: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of four models knows the odds; the others say as much, about nothing."""
    odds = chance.normal(size=count) * 0.4
    others = sigmoid(chance.normal(size=(count, 3)) * 0.4)
    return np.column_stack([sigmoid(odds), others]), (chance.random(count) < sigmoid(odds)).astype(int)


@pytest.mark.parametrize("seed", range(5))
def test_among_noise_the_mixture_comes_to_the_one_model_that_knows(seed: int):
    """All that learning costs is 4 nats in sum, however long it goes on; about ln 4 of it is not to be had."""
    buy, up = informative(np.random.default_rng(seed), 20_000)
    mixed = mixed_alone(buy, up, BARE)
    ours, best = loss(mixed.probability, up), loss(buy[:, 0], up)
    assert (ours - best).sum() < 4
    assert ours.mean() < loss(buy.mean(axis=1), up).mean() - 0.01
    assert mixed.weights[-2000:, 0].mean() > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_two_models_that_know_by_turns_are_better_together_than_either_where_the_context_tells_the_turn(seed: int):
    chance = np.random.default_rng(seed)
    count = 12_000
    odds, weather = chance.normal(size=count) * 0.6, np.where(np.arange(count) // 150 % 2, 1.0, -1.0)
    noise = chance.normal(size=(2, count)) * 0.6
    buy = sigmoid(np.column_stack([np.where(weather > 0, odds, noise[0]), np.where(weather < 0, odds, noise[1])]))
    up = (chance.random(count) < sigmoid(odds)).astype(int)
    mixed = mixed_alone(
        buy, up, replace(GateRule(), context=WEATHER), weather[:, None] + chance.normal(0, 0.2, (count, 1))
    )
    ours = loss(mixed.probability, up).mean()
    assert ours < min(loss(each, up).mean() for each in buy.T) - 0.02
    assert ours < loss(buy.mean(axis=1), up).mean() - 0.005
    late = np.arange(count) > 6000
    assert mixed.weights[late & (weather > 0), 0].mean() > 0.75
    assert mixed.weights[late & (weather < 0), 1].mean() > 0.75


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loudness", [0.05, 0.1, 0.4, 1.5])
def test_where_nobody_knows_anything_it_loses_to_nobody_by_more_than_noise(seed: int, loudness: float):
    """Two standard errors, beside 2 nats in sum that looking at five features for nothing may cost."""
    chance = np.random.default_rng([seed, int(loudness * 100)])
    buy = sigmoid(chance.normal(size=(20_000, 4)) * loudness)
    up = chance.integers(0, 2, 20_000)
    centre, scale = (np.array([getattr(each, name) for each in CONTEXT]) for name in ("centre", "scale"))
    mixed = mixed_alone(buy, up, GateRule(), centre + scale * chance.normal(size=(20_000, len(CONTEXT))))
    ours = loss(mixed.probability, up)
    for other in (*buy.T, buy.mean(axis=1)):
        behind = ours - loss(other, up)
        assert behind.mean() < 2 * behind.std() / np.sqrt(len(up)) + 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_it_recovers_when_the_best_model_turns_against_it(seed: int):
    chance = np.random.default_rng(seed)
    buy, up = informative(chance, 12_000)
    buy[6000:, :2] = np.column_stack([1 - buy[6000:, 0], buy[6000:, 0]])  # says the contrary; the second knows now
    mixed = mixed_alone(buy, up, BARE)
    ours, knows = loss(mixed.probability, up), loss(np.where(np.arange(12_000) < 6000, *buy[:, :2].T), up)
    behind = ours - knows
    assert behind[6000:6500].mean() > 0.03, "it could not know at once"
    assert behind[9000:].mean() < 0.002
    assert ours[9000:].mean() < loss(buy.mean(axis=1), up)[9000:].mean() - 0.01


@pytest.mark.parametrize("seed", range(4))
def test_a_sabotaged_gate_is_replaced_by_the_best_model_and_comes_back_when_it_has_learned_better(seed: int):
    rule = GateRule(context=(), gate_half_life=1500, trailing_half_life=1000)
    buy, up = informative(np.random.default_rng(seed), 24_000)
    closes = at_once(buy, up)
    state, before = mix(GateState.initial(FOUR, ()), part(closes, slice(8000)), rule)
    record, pending = state.as_arrays()
    record["own"][2, 0, 0] += 30.0  # all weight on one that knows nothing
    rest = part(closes, closes.rows >= state.needs_from)
    end, after = mix(state.with_arrays(record, pending), rest, rule)
    assert after.used[0] == before.used[-1] == MIXTURE
    assert after.weights[0, 2] > 0.99
    assert (after.weights[0, :2] > 0.0009).all(), "no model is given up: it could not come back"
    replaced = np.flatnonzero(after.used != MIXTURE)
    assert replaced[0] < 1000
    assert (after.used[replaced] == 0).mean() > 0.99, "the one that knows stands in"
    np.testing.assert_array_equal(after.weights[after.used == 0], np.eye(4)[[0] * (after.used == 0).sum()])
    stands_in, up_after = after.used != MIXTURE, up[8000:]
    saved = loss(after.mixture, up_after)[stands_in] - loss(after.probability, up_after)[stands_in]
    assert saved.mean() > 0.001
    assert (after.used[-2000:] == MIXTURE).all()
    trail = trails(end)["transformer"]
    assert trail.mixture_loss - trail.loss < 2 * trail.noise


def test_the_equal_average_stands_in_where_it_is_the_best():
    chance = np.random.default_rng(5)
    parts = chance.normal(size=(6000, 4)) * 0.5
    buy, up = sigmoid(parts), (chance.random(6000) < sigmoid(parts.sum(axis=1))).astype(int)
    rule = GateRule(context=(), learning_rate=1e-6)  # a gate that cannot learn out of it
    closes = at_once(buy, up)
    record, pending = GateState.initial(FOUR, ()).as_arrays()
    record["own"][0, 0, 0] = 5.0
    _, mixed = mix(GateState.initial(FOUR, ()).with_arrays(record, pending), closes, rule)
    assert (mixed.used[-4000:] == EQUAL).all()
    np.testing.assert_array_equal(mixed.weights[-4000:], 0.25)
    np.testing.assert_allclose(mixed.probability[-4000:], closes.buy[-4000:].astype(float).mean(axis=1), rtol=1e-12)


# What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, 1.0001, -0.1])
def test_what_is_no_probability_is_refused_by_the_name_of_its_model(wrong: float):
    closes = ragged(50, 1)
    closes.buy[20, 2] = wrong
    with pytest.raises(
        ModelBroken, match=f"model cnn: expected a probability.*found {wrong:.4g}.*row {closes.rows[20]}"
    ):
        mix(GateState.initial(FOUR, LOOKED_AT), closes, GateRule())


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_a_feature_that_is_no_number_is_unknown(wrong: float):
    closes = ragged(300, 2)
    unknown = replace(closes, context=np.where(np.isnan(closes.context), np.float32(wrong), closes.context))
    start = GateState.initial(FOUR, LOOKED_AT)
    assert_same(mix(start, unknown, QUICK)[1], mix(start, closes, QUICK)[1])


def test_closes_whose_answers_are_waited_for_have_to_be_handed_in_again():
    closes = ragged(100, 3)
    state, _ = mix(GateState.initial(FOUR, LOOKED_AT), part(closes, slice(60)), QUICK)
    assert state.needs_from <= closes.rows[59]
    with pytest.raises(ValueError, match=f"from row {state.needs_from} on"):
        mix(state, part(closes, slice(60, None)), QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"rows": np.array([5, 5, 6])}, "rising", id="a row twice"),
        pytest.param({"rows": np.array([-1, 5, 6])}, "from 0 on", id="a row below 0"),
        pytest.param({"settled": np.array([6, 6, 8])}, "row 6 settled 6", id="an answer at its own close"),
        pytest.param({"up": np.array([0, 1, 2])}, "found \\[0, 1, 2\\]", id="no answer"),
        pytest.param({"buy": np.full((2, 2), 0.5)}, "N = 3", id="another length"),
        pytest.param({"context": np.zeros(3)}, "N = 3", id="another shape"),
    ],
)
def test_closes_that_cannot_be_are_refused(change: dict, message: str):
    fields = {"rows": np.array([5, 6, 7]), "buy": np.full((3, 2), 0.5), "context": np.zeros((3, 0))}
    fields |= {"up": np.array([0, 1, -1]), "settled": np.array([6, 7, 8])}
    Closes(**fields)
    with pytest.raises(ValueError, match=message):
        Closes(**fields | change)


def test_arrays_of_other_models_or_features_are_refused():
    with pytest.raises(ValueError, match=r"expected 3 models .* found 4 models"):
        mix(GateState.initial("abc", LOOKED_AT), ragged(10, 1), GateRule())
    with pytest.raises(ValueError, match=r"the context \('weather',\), found 4 models and 5 features"):
        mix(GateState.initial(FOUR, ["weather"]), ragged(10, 1), GateRule())


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"gate_half_life": 0.5},
        {"skill_half_life": float("inf")},
        {"trailing_half_life": float("nan")},
        {"band": 1.0, "release": 2.0},
        {"release": -1.0},
        {"least": 1},
        {"least": 3000},
        {"patience": 0},
        {"context": (WEATHER[0], WEATHER[0])},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(SettingRefused, match=r"expected .*found"):
        GateRule(**wrong)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": float("nan")}, {"centre": float("inf")}])
def test_a_feature_without_a_scale_is_refused(wrong: dict):
    with pytest.raises(SettingRefused, match=r"feature weather: expected .*found"):
        Feature(**{"name": "weather", "centre": 0.0, "scale": 1.0} | wrong)


def test_bytes_that_are_no_state_are_refused():
    state, _ = mix(GateState.initial(FOUR, LOOKED_AT), ragged(40, 1), QUICK)
    good = state.to_bytes()
    assert GateState.from_bytes(good) == state
    for bad, message in [
        (good[:-3], "for each pending close, found"),
        (b"", "without its first line"),
        (good.replace(b'"version": 1', b'"version": 7'), "version 7, expected 1"),
        (good.replace(b'"transformer", ', b""), "a gate over 3 models"),
    ]:
        with pytest.raises(ValueError, match=message):
            GateState.from_bytes(bad)
    with pytest.raises(ValueError, match="each once"):
        GateState.initial(["a", "a"], ())
    with pytest.raises(ValueError, match="found none"):
        GateState.initial([], ())
