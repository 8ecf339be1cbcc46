"""Whether a model still knows more than its class prior: regression and stagnation, with their figures. Pure."""

from collections.abc import Sequence
from statistics import fmean, stdev

from hindsight.health.findings import Finding, calls, off, ok
from hindsight.store.skills import SkillStanding

WEEK = 7  # days that are held against those before them
ENOUGH = 2 * WEEK
ERRORS = 2.0  # standard errors beyond which a difference counts


def judge_skill(standing: SkillStanding) -> Finding:
    """Whether the newest week's gain over the class prior is below the weeks before, or there was none all along."""
    name, gains = f"{standing.stream} {standing.model}", standing.gains
    if len(gains) < ENOUGH:
        figures = {"days": len(gains)}
        return off("skill", name, f"Judged once {ENOUGH} days are scored; so far {len(gains)} are.", figures)
    before, newest = gains[:-WEEK], gains[-WEEK:]
    mean, error = fmean(gains), _error(gains)
    fall, fall_error = fmean(before) - fmean(newest), (_error(before) ** 2 + _error(newest) ** 2) ** 0.5
    figures = {"days": len(gains), "gain": mean, "gain_error": error, "fall": fall, "fall_error": fall_error}
    if fall > ERRORS * fall_error:
        sentence = (
            f"Its gain over the class prior fell from {fmean(before):.4f} to {fmean(newest):.4f} (± {fall_error:.4f}) a"
            f" prediction in the week to {standing.days[-1]}. See its drifts and promotions in `hindsight status`, and"
            " `hindsight models rollback` if the serving weights are at fault."
        )
        return calls("skill", name, "late", sentence, figures)
    if mean <= ERRORS * error:
        sentence = (
            f"No skill in {len(gains)} days to {standing.days[-1]}: its gain over the class prior is {mean:.4f}"
            f" (± {error:.4f}) a prediction. See whether its frame holds what moves this market."
        )
        return calls("skill", name, "late", sentence, figures)
    return ok("skill", name, f"It gains {mean:.4f} (± {error:.4f}) a prediction over the class prior.", figures)


def _error(values: Sequence[float]) -> float:
    """The standard error of the mean of daily values."""
    return stdev(values) / len(values) ** 0.5
