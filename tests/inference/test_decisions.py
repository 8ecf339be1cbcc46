"""Decisions: thresholds at their very edge, holds that say why, and nonsense refused."""

import doctest
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import SettingRefused
from hindsight.inference import decisions
from hindsight.inference.decisions import ACTIONS, BUY, HOLD, SELL, DecisionRule, decide, reason
from hindsight.inference.gate_state import GateState
from hindsight.inference.mixture import Closes, GateRule, mix

STRICT = DecisionRule(buy_threshold=0.52, sell_threshold=0.49, minimum_confidence=0.55)


@pytest.mark.parametrize(
    ("probability", "rule", "action", "why"),
    [
        pytest.param(0.581, DecisionRule(), BUY, "0.581 is at or above the buy threshold 0.55", id="buy"),
        pytest.param(0.402, DecisionRule(), SELL, "0.402 is at or below the sell threshold 0.45", id="sell"),
        pytest.param(0.55, DecisionRule(), BUY, "0.550 is at or above the buy threshold 0.55", id="at the edge"),
        pytest.param(0.45, DecisionRule(), SELL, "0.450 is at or below the sell threshold 0.45", id="other edge"),
        pytest.param(
            0.513,
            DecisionRule(),
            HOLD,
            "0.513 is below the buy threshold 0.55 and above the sell threshold 0.45",
            id="between",
        ),
        pytest.param(
            0.54999,
            DecisionRule(),
            HOLD,
            "0.54999 is below the buy threshold 0.55 and above the sell threshold 0.45",
            id="as many digits as it takes",
        ),
        pytest.param(
            0.53,
            STRICT,
            HOLD,
            "0.530 is at or above the buy threshold 0.52, but its confidence 0.530 is below 0.55",
            id="not confident enough to buy",
        ),
        pytest.param(
            0.46,
            STRICT,
            HOLD,
            "0.460 is at or below the sell threshold 0.49, but its confidence 0.540 is below 0.55",
            id="not confident enough to sell",
        ),
        pytest.param(0.44, STRICT, SELL, "0.440 is at or below the sell threshold 0.49", id="confident enough"),
        pytest.param(float("nan"), DecisionRule(), HOLD, "no model predicted", id="nobody spoke"),
        pytest.param(1.0, DecisionRule(), BUY, "1.000 is at or above the buy threshold 0.55", id="certain"),
        pytest.param(0.0, DecisionRule(), SELL, "0.000 is at or below the sell threshold 0.45", id="certain fall"),
    ],
)
def test_each_close_is_decided_with_a_reason(probability: float, rule: DecisionRule, action: int, why: str):
    found = decide(np.array([probability]), rule)
    assert found.action.tolist() == [action]
    assert found.names() == [ACTIONS[action]]
    assert found.reasons() == [why]


@given(
    probability=st.floats(0, 1),
    buy=st.floats(0.501, 0.99),
    sell=st.floats(0.01, 0.499),
    least=st.floats(0.5, 0.9),
    nudge=st.sampled_from([0.0, -1e-12, 1e-12]),
    near=st.sampled_from(["anywhere", "buy", "sell"]),
)
def test_a_reason_says_what_was_done_and_its_numbers_bear_it_out(
    probability: float, buy: float, sell: float, least: float, nudge: float, near: str
):
    p = {"anywhere": probability, "buy": buy + nudge, "sell": sell + nudge}[near]
    rule = DecisionRule(buy_threshold=buy, sell_threshold=sell, minimum_confidence=least)
    action = decide(np.array([p]), rule).names()[0]
    why = reason(p, rule)
    said = float(why.split()[0])
    assert (said >= buy, said <= sell) == (p >= buy, p <= sell)
    kind = "hold" if " and above " in why or ", but " in why else re.findall(r"the (buy|sell) threshold", why)[0]
    assert kind == action
    if ", but " in why:
        assert float(re.findall(r"confidence (\S+) is", why)[0]) < least


def test_confidence_is_the_probability_of_the_likelier_side():
    found = decide(np.array([0.3, 0.5, 0.9, np.nan], np.float32), DecisionRule())
    np.testing.assert_allclose(found.confidence, [0.7, 0.5, 0.9, np.nan], rtol=1e-6)


def test_float32_probabilities_at_a_threshold_are_decided_as_what_they_are():
    found = decide(np.array([0.55, 0.45], np.float32), DecisionRule())
    assert found.names() == ["buy", "sell"]


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, 1.01, -1e-9])
def test_what_is_no_probability_is_refused(wrong: float):
    with pytest.raises(ValueError, match=f"expected probabilities.*found {re.escape(str(wrong))}"):
        decide(np.array([0.5, wrong]), DecisionRule())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"buy_threshold": 0.45, "sell_threshold": 0.55}, id="crossed"),
        pytest.param({"buy_threshold": 0.5, "sell_threshold": 0.5}, id="nothing between"),
        pytest.param({"buy_threshold": 0.4, "sell_threshold": 0.3}, id="buys what rather falls"),
        pytest.param({"buy_threshold": 0.7, "sell_threshold": 0.6}, id="sells what rather rises"),
        pytest.param({"buy_threshold": 1.5}, id="above 1"),
        pytest.param({"sell_threshold": -0.1}, id="below 0"),
        pytest.param({"buy_threshold": float("nan")}, id="no number"),
        pytest.param({"sell_threshold": float("nan")}, id="no number either"),
        pytest.param({"minimum_confidence": 0.2}, id="less than chance"),
        pytest.param({"minimum_confidence": 1.0}, id="never"),
        pytest.param({"minimum_confidence": float("nan")}, id="no confidence"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(SettingRefused, match=r"expected .*found"):
        DecisionRule(**wrong)


def test_where_all_models_are_silent_the_decision_is_to_hold_and_says_so():
    closes = Closes(
        rows=np.arange(3),
        buy=np.array([[0.9, 0.8], [np.nan, np.nan], [np.nan, 0.1]], np.float32),
        context=np.empty((3, 0), np.float32),
        up=np.full(3, -1, np.int8),
        settled=np.arange(1, 4),
    )
    _, mixed = mix(GateState.initial(("cnn", "lstm"), ()), closes, GateRule(context=()))
    found = decide(mixed.probability, DecisionRule())
    assert found.names() == ["buy", "hold", "sell"]
    assert found.reasons()[1] == "no model predicted"
    assert mixed.used_names(("cnn", "lstm")) == ["mixture", "none", "mixture"]


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(decisions).failed == 0
    assert doctest.testmod(decisions).attempted >= 2
