"""How the tables keep up with the market: candles, predictions, learning, order books. Pure."""

from datetime import datetime, timedelta

from hindsight.health.findings import (
    Figures,
    Finding,
    Kind,
    Now,
    Verdict,
    calls,
    follows,
    of_stage,
    off,
    ok,
    span,
    timely,
)
from hindsight.store.standings import BookStanding, LearnerStanding, StreamStanding

DEAD = 6  # times late_seconds
STEPS_LATE = 10  # times step_every
RUNS = "see the runs of `advance` in the UI, and whether the daemon runs"


def judge_candles(standing: StreamStanding, part: Finding, waiting_since: datetime | None, now: Now) -> Finding:
    """Whether a stream's candles are stored in time, and if not, why. `part` is what hears them in the feed.

    `waiting_since` is when the oldest candles landed that nobody has taken up.
    """
    name, close = str(standing.stream), standing.close
    if close is None:
        figures = of_stage("stored", standing.stored)
        if part.verdict != "ok":
            return follows("candles", name, part.verdict, f"Nothing is stored yet: see {part.name}.", figures)
        return off("candles", name, "Nothing is stored yet; the feed fetches history first.", figures)
    overdue = now.since(close + standing.stream.step)
    figures = {"overdue": overdue, **of_stage("stored", standing.stored)}
    if part.verdict == "off":
        return off("candles", name, part.sentence, figures)
    if overdue <= now.late_seconds:
        return timely("candles", name, "stored", standing.stored, figures, now)
    verdict, last = (
        _verdict(overdue, now),
        f"The last candle closed at {close:%F %T}, the next is {span(overdue)} overdue",
    )
    if waiting_since is not None and now.since(waiting_since) > now.late_seconds:
        return calls("candles", name, verdict, f"{last}: candles have landed that nobody takes up; {RUNS}.", figures)
    if part.verdict != "ok":
        return follows("candles", name, verdict, f"{last}: see {part.name}.", figures)
    sentence = (
        f"{last} although the feed hears the venue: a gap at the venue. It ends by itself; if it does not, see whether "
        "this market is still traded."
    )
    return (calls if verdict == "dead" else follows)("candles", name, "late", sentence, figures)


def judge_predictions(standing: LearnerStanding, candles: Finding, close: datetime | None, now: Now) -> Finding:
    """Whether a model predicts from each close in time."""
    name = f"{standing.stream} {standing.model}"
    figures = of_stage("predicted", standing.predicted)
    looked_at = max((at for at in (standing.until, standing.predicted_at) if at is not None), default=None)
    if close is None or looked_at is None:
        return off("inference_references", name, "Nothing is predicted yet: it takes some history first.", figures)
    found = _behind("inference_references", name, "predicted from", looked_at, close, candles, figures, standing, now)
    if found is not None:
        return found
    made = standing.predicted_at
    if standing.until == looked_at and (made is None or made < looked_at - 3 * standing.stream.step):
        sentence = "No prediction of late: candles are missing in what the model would see, or predict_every is high."
        return ok("inference_references", name, sentence, figures)
    return timely("inference_references", name, "predicted from", standing.predicted, figures, now)


def judge_learning(
    standing: LearnerStanding, predictions: Finding, close: datetime | None, step_every: int, now: Now
) -> Finding:
    """Whether a model settles and trains in time, and how old its newest weights are.

    `step_every` is how many candles may lie between two steps of a model that is well.
    """
    name, age = f"{standing.stream} {standing.model}", standing.step_age
    ages = {"candles_since_step": age, "candles_since_checkpoint": standing.checkpoint_age}
    figures = {**ages, **of_stage("trained", standing.trained)}
    if close is None or standing.until is None or age is None:
        return off("checkpoints", name, "Nothing is learned yet: predictions are answered first.", figures)
    found = _behind("checkpoints", name, "learned from", standing.until, close, predictions, figures, standing, now)
    if found is not None:
        return found
    if age > STEPS_LATE * step_every:
        sentence = (
            f"No training step for {age} candles, though every close was looked at: see in `hindsight status` whether "
            "predictions are still settled, and what the runs log."
        )
        return calls("checkpoints", name, "late", sentence, figures)
    return timely("checkpoints", name, "learned from", standing.trained, figures, now)


def judge_book(standing: BookStanding, cause: Finding, shortest: timedelta, now: Now) -> Finding:
    """Whether a market's order book is stored in time: books are taken up with candles, at most `shortest` apart."""
    name = str(standing)
    if standing.known_at is None:
        if cause.verdict != "ok":
            return follows("order_book", name, cause.verdict, f"Nothing is stored of late: see {cause.name}.", {})
        return off("order_book", name, "Nothing is stored yet.", {})
    age = now.since(standing.known_at)
    overdue = age - shortest.total_seconds() / now.speed
    if overdue <= now.late_seconds:
        return ok("order_book", name, "Every second is recorded.", {"age": age})
    verdict, last = _verdict(overdue, now), f"The last second stored ended {span(age)} ago"
    if cause.verdict != "ok":
        return follows("order_book", name, verdict, f"{last}: see {cause.name}.", {"age": age})
    return calls("order_book", name, verdict, f"{last} although the feed hears the book: {RUNS}.", {"age": age})


def _behind(
    kind: Kind,
    name: str,
    done: str,
    reached: datetime,
    close: datetime,
    cause: Finding,
    figures: Figures,
    standing: LearnerStanding,
    now: Now,
) -> Finding | None:
    """The finding where closes wait to be `done`, or where there is none because of `cause`; else None."""
    is_cause = cause.verdict in ("late", "dead")
    if reached >= close:
        return follows(kind, name, cause.verdict, f"See {cause.name}.", figures) if is_cause else None
    behind = now.since(reached + standing.stream.step)
    if behind <= now.late_seconds:
        return None
    sentence = f"Closes after {reached:%F %T} are not {done}, for {span(behind)}: {RUNS}."
    return (follows if is_cause else calls)(kind, name, _verdict(behind, now), sentence, {**figures, "behind": behind})


def _verdict(seconds: float, now: Now) -> Verdict:
    return "dead" if seconds > DEAD * now.late_seconds else "late"
