"""The models on real candles, each learning in four ways on the same closes: what is run, and kept to go on from.

    python -m benchmarks.real_models --since 2022-01-01 --until 2022-04-01 --frozen-at 2022-01-24

| way | weights that predict |
|---|---|
| in hindsight | those of the loop, which learns from every answer as it comes, and replays older ones |
| without replay | the same, but no reference is drawn again once it has been trained on |
| frozen | those that the loop had at `--frozen-at`; they learn no more |
| refit | new ones every `--refit-every` days, from the references of the last `--refit-on` days alone |

Frozen weights are the ones that serve: the first look at who is to serve falls on `--frozen-at`, and the next beyond
the end. A refit takes the steps of the loop, on batches drawn from the window in `--passes` shuffled passes; it sees no
answer that came after it. Frames are the default ones, for no book was recorded. What is learned stays in `--cache`:
the same command goes on where it was stopped, and with a later `--until` it learns only what is new.
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch

from benchmarks.fresh import CHECKOUT
from benchmarks.homes import scratch
from benchmarks.real_scores import report
from benchmarks.real_trial import HINDSIGHT, REFIT, WITHOUT_REPLAY, Trial, learn_in_loop, refit
from hindsight.training.hyperparameters import Hyperparameters


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    moment = datetime.fromisoformat
    parser.add_argument("--symbols", nargs="+", default=["ETH/USDT", "BTC/USDT"])
    parser.add_argument("--since", type=moment, default="2022-01-01")
    parser.add_argument("--until", type=moment, default="2024-01-01")
    parser.add_argument("--frozen-at", type=moment, default="2022-04-01")
    parser.add_argument("--predict-every", type=int, default=1, help="closes per prediction")
    parser.add_argument("--train-every", type=int, default=15, help="closes per training step, beside those of pivots")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weight-decay", type=float, default=Hyperparameters().weight_decay)
    parser.add_argument("--models", nargs="+", default=["cnn", "lstm", "transformer", "dqn"])
    parser.add_argument(
        "--ways", nargs="*", default=[HINDSIGHT, REFIT, WITHOUT_REPLAY], help="what is run; none: report"
    )
    parser.add_argument("--ways-of", nargs="+", help="models that the ways are run of, where not all")
    parser.add_argument("--refit-every", type=int, default=14, help="days")
    parser.add_argument("--refit-on", type=int, default=28, help="days")
    parser.add_argument("--passes", type=int, default=4, help="over the references of a refit")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / ".hindsight" / "real-models")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    trials = [
        Trial(
            symbol=symbol,
            **{name: getattr(chosen, name).replace(tzinfo=UTC) for name in ("since", "until", "frozen_at")},
            **{name: getattr(chosen, name) for name in ("predict_every", "train_every", "batch_size", "weight_decay")},
            passes=chosen.passes,
            models=tuple(chosen.models),
            refit_every=timedelta(days=chosen.refit_every),
            refit_on=timedelta(days=chosen.refit_on),
            cache=chosen.cache.resolve(),
        )
        for symbol in chosen.symbols
    ]
    with scratch():
        for trial in trials:
            for way in chosen.ways:
                for model in chosen.ways_of or trial.models:
                    if way == REFIT:
                        refit(trial, model, print)
                    else:
                        learn_in_loop(trial, way, model, print)
            report(trial)


if __name__ == "__main__":
    main()
