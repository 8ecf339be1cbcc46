"""Whether a model still knows more than its class prior: regression and stagnation, with their figures. Pure."""

from statistics import fmean

from hindsight.health.findings import Finding, calls, off, ok
from hindsight.store.skills import WEEK, SkillStanding, standard_error

ENOUGH = 2 * WEEK
ERRORS = 2.0  # standard errors beyond which a difference counts


def judge_skill(standing: SkillStanding) -> Finding:
    """Whether the newest week's gain over the class prior is below the weeks before, or there was none all along.

    That is the skill of the weights that learn: they are what is scored, whatever checkpoint serves. The figure `skill`
    says the verdict in a word.
    """
    name, gains = f"{standing.stream} {standing.model}", standing.gains
    mean, error = standing.gain, standing.gain_error
    if mean is None or error is None or len(gains) < ENOUGH:
        figures = {"skill": "too early", "days": len(gains)}
        return off("skill", name, f"Judged once {ENOUGH} days are scored; so far {len(gains)} are.", figures)
    before, newest = gains[:-WEEK], gains[-WEEK:]
    fall = fmean(before) - fmean(newest)
    fall_error = (standard_error(before) ** 2 + standard_error(newest) ** 2) ** 0.5
    figures = {"days": len(gains), "gain": mean, "gain_error": error, "fall": fall, "fall_error": fall_error}
    if fall > ERRORS * fall_error:
        sentence = (
            f"Its gain over the class prior fell from {fmean(before):.4f} to {fmean(newest):.4f} (± {fall_error:.4f}) a"
            f" prediction in the week to {standing.days[-1]}. That is measured of the weights that learn, not of the"
            " checkpoint that serves. See its drifts and weeks in `hindsight status`, and in `hindsight models list`"
            " how the two compared at the last look."
        )
        return calls("skill", name, "late", sentence, {"skill": "fallen", **figures})
    if mean <= ERRORS * error:
        sentence = (
            f"No skill in {len(gains)} days to {standing.days[-1]}: the gain over the class prior of the weights that"
            f" learn is {mean:.4f} (± {error:.4f}) a prediction. See whether its frame holds what moves this market."
        )
        return calls("skill", name, "late", sentence, {"skill": "none", **figures})
    sentence = f"It gains {mean:.4f} (± {error:.4f}) a prediction over the class prior."
    return ok("skill", name, sentence, {"skill": "there", **figures})
