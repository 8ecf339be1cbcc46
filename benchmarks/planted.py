"""Whether every block of a frame arrives where it should, and only there: markets in which something is planted.

    python -m benchmarks planted    (`make bench-planted`)

| planted | frame that shows it | frame, or market, that must not |
|---|---|---|
| momentum of 1m returns | own candles | the same frame of a market without a signal |
| BTC's 1s return, two seconds ahead of ETH | own and BTC's candles | own candles alone |
| the book, a second ahead | own candles and the book | own candles alone |
| nothing, five seeds | | own and BTC's candles and the book |

Where it is shown, every model and the decision have to be within POINTS of the optimum; elsewhere within NOISE standard
errors of a half, and without gain over the prior. Judged is the last third of each market, prequentially.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.planted_market import DECISION, LEARNING, MODELS, Judged, Planted, learn_and_judge

POINTS = 2.0
NOISE = 3.0  # of some thirty comparisons, by chance alone, one in thirteen is beyond it
AT_ONCE = 2  # processes

MOMENTUM = Planted(signal="momentum", timeframe="1m", hours=480, frame=("own",), lookback=300)
LEAD = Planted(signal="lead", timeframe="1s", hours=20, frame=("own", "BTC/USDT 1s"))
IMBALANCE = Planted(signal="imbalance", timeframe="1s", hours=20, frame=("own", "book"))
NOTHING = Planted(signal="none", timeframe="1s", hours=3, frame=("own", "BTC/USDT 1s", "book"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Markets that are judged together, and whether what is planted in them is to be found."""

    name: str
    markets: tuple[Planted, ...]
    is_shown: bool


PROMISES = (
    Promise(name="momentum 1m, own candles", markets=(MOMENTUM,), is_shown=True),
    Promise(name="no signal 1m, own candles", markets=(replace(MOMENTUM, signal="none"),), is_shown=False),
    Promise(name="lead of BTC, its candles seen", markets=(LEAD,), is_shown=True),
    Promise(name="lead of BTC, own candles alone", markets=(replace(LEAD, frame=("own",)),), is_shown=False),
    Promise(name="imbalance, book seen", markets=(IMBALANCE,), is_shown=True),
    Promise(name="imbalance, own candles alone", markets=(replace(IMBALANCE, frame=("own",)),), is_shown=False),
    Promise(
        name="no signal 1s, all blocks, five seeds",
        markets=tuple(replace(NOTHING, seed=seed) for seed in (7, 8, 9, 10, 11)),
        is_shown=False,
    ),
)


def measure() -> list[Figure]:
    """A figure for each promise."""
    markets = [market for promise in PROMISES for market in promise.markets]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda market: fresh.run(learn_and_judge, **asdict(market)), markets))
    found = dict(zip(markets, outcomes, strict=True))
    return [_figure(promise, [found[market] for market in promise.markets]) for promise in PROMISES]


def _figure(promise: Promise, outcomes: Sequence[fresh.Outcome]) -> Figure:
    each = [{name: Judged(**judged) for name, judged in outcome.result["judged"].items()} for outcome in outcomes]
    together = {name: reduce(add, (judged[name] for judged in each)) for name in (*MODELS, DECISION)}
    market, seconds = promise.markets[0], sum(outcome.processor_seconds for outcome in outcomes)
    steps = sum(sum(outcome.result["steps"].values()) for outcome in outcomes)
    if promise.is_shown:
        goal = f"every accuracy within {POINTS:g} points of the optimum, {100 * market.optimum:.1f} %"
        reached = {name: 100 * (market.optimum - judged.accuracy) <= POINTS for name, judged in together.items()}
    else:
        goal = f"every accuracy within {NOISE:g} standard errors of 50 %, no gain over the prior"
        reached = {name: _is_noise(judged) for name, judged in together.items()}
    return Figure(
        name=promise.name,
        goal=goal,
        measured=", ".join(f"{name} {100 * judged.accuracy:.1f}" for name, judged in together.items()),
        ratio=f"{sum(reached.values())}/{len(reached)}",
        is_reached=all(reached.values()),
        notes=(
            *(f"{name:12s} {_in_words(judged)}" for name, judged in together.items()),
            *(
                _of_seed(market.seed, judged)
                for market, judged in zip(promise.markets, each, strict=True)
                if len(each) > 1
            ),
            f"{sum(outcome.result['closes'] for outcome in outcomes):,} closes, {steps:,} steps,"
            f" {seconds:.0f} processor seconds, lookback {market.lookback}",
            ", ".join(f"{name} {value}" for name, value in LEARNING.items()),
        ),
    )


def _is_noise(judged: Judged) -> bool:
    return abs(judged.accuracy - 0.5) <= NOISE * judged.accuracy_error and judged.gain <= NOISE * judged.gain_error


def _in_words(judged: Judged) -> str:
    return (
        f"{100 * judged.accuracy:.2f} % ± {100 * judged.accuracy_error:.2f} of {judged.answers:,},"
        f" gain {1000 * judged.gain:+.1f} ± {1000 * judged.gain_error:.1f} thousandths of a nat"
    )


def _of_seed(seed: int, judged: dict[str, Judged]) -> str:
    return f"seed {seed}: " + ", ".join(f"{name} {100 * each.accuracy:.2f} %" for name, each in judged.items())
