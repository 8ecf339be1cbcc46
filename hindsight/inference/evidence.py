"""Evidence: whether a challenger predicts better than the champion, judged on the same references.

Legend: N references, B blocks of the time grid, R resamples.

What is compared is the loss difference of each reference, whatever the two losses are. Source: Diebold & Mariano 1995,
"Comparing Predictive Accuracy", doi:10.1080/07350015.1995.10524599

Neighbouring references share most of their answer, so that their differences are far fewer facts than N. Whole blocks
of the grid are drawn instead, side by side. Source: Künsch 1989, "The Jackknife and the Bootstrap for General
Stationary Observations", doi:10.1214/aos/1176347265; Carlstein 1986, "The Use of Subseries Values for Estimating the
Variance of a General Statistic from a Stationary Sequence", doi:10.1214/aos/1176350057

The interval is the studentised one, for the percentiles of a bootstrapped mean are too narrow where blocks are few.
Source: Götze & Künsch 1996, "Second-order correctness of the blockwise bootstrap", doi:10.1214/aos/1069362303
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MINIMUM_BLOCKS = 10  # of fewer, an interval promises more than it holds

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Two mean losses on the same references, their difference, and the interval that it lies in with `confidence`.

    | field | meaning |
    |---|---|
    | references | made at or after the embargo, and answered for both |
    | blocks | of the grid that hold at least one of them |
    | mean_champion, mean_challenger | NaN without references |
    | difference | mean_challenger − mean_champion: below 0 the challenger is better |
    | low, high | −∞ and ∞ where nothing can be said: too few blocks, or a loss that is not finite |
    """

    references: int
    blocks: int
    mean_champion: float
    mean_challenger: float
    difference: float
    low: float
    high: float
    confidence: float

    @property
    def is_better(self) -> bool:
        """Whether the challenger is better: the whole interval lies below 0, and it rests on enough blocks."""
        figures = (self.mean_champion, self.mean_challenger, self.difference, self.low, self.high)
        return self.blocks >= MINIMUM_BLOCKS and all(map(math.isfinite, figures)) and self.high < 0


def paired_evidence(
    rows: Ints,
    champion_loss: Floats,
    challenger_loss: Floats,
    *,
    block: int,
    embargo_until_row: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Evidence:
    """What the references made at `rows` [N], sorted, say about two models; the losses [N] stand beside them.

    A loss that is NaN has no answer: its reference is left out for both. So are references made before
    `embargo_until_row`, for the weights may have learned from answers that overlap theirs: it lies at least the longest
    horizon of a label after the last reference that either model learned from before they were compared.

    `block` is in rows, a few times the longest horizon, for answers that span two blocks bind them together: at one
    horizon the better of two equals is found in about 5 % instead of 2.5 %. That is the rate of one look; who looks
    again after every block, until the answer is yes, is wrong more often.

    Raises ValueError for arrays of different lengths, rows out of order, and numbers that make no interval.
    """
    _check(rows, champion_loss, challenger_loss, block, confidence, resamples)
    used = (rows >= embargo_until_row) & ~np.isnan(champion_loss) & ~np.isnan(challenger_loss)
    champion, challenger = champion_loss[used].astype(np.float64), challenger_loss[used].astype(np.float64)
    references = len(champion)
    _, first = np.unique(rows[used] // block, return_index=True)
    with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, and what is not finite is never better
        mean_champion, mean_challenger, difference = (
            float(each.mean()) if references else math.nan for each in (champion, challenger, challenger - champion)
        )
    low, high = -math.inf, math.inf
    if len(first) >= MINIMUM_BLOCKS and math.isfinite(mean_champion) and math.isfinite(mean_challenger):
        total_B = np.add.reduceat(challenger - champion, first)
        count_B = np.diff(np.append(first, references))
        chance = np.random.Generator(np.random.PCG64(seed))
        low, high = _interval(total_B, count_B, confidence, resamples, chance)
    return Evidence(
        references=references,
        blocks=len(first),
        mean_champion=mean_champion,
        mean_challenger=mean_challenger,
        difference=difference,
        low=low,
        high=high,
        confidence=confidence,
    )


def _interval(
    total_B: NDArray[np.float64], count_B: Ints, confidence: float, resamples: int, chance: np.random.Generator
) -> tuple[float, float]:
    """Where the mean of all references lies, from the sums and counts of the blocks: a block weighs what it counts."""
    blocks = len(total_B)
    mean = total_B.sum() / count_B.sum()
    excess_B = total_B - mean * count_B
    error = np.sqrt((excess_B**2).sum()) / count_B.sum()
    if error == 0:
        return float(mean), float(mean)
    drawn_RB = chance.integers(0, blocks, (resamples, blocks))
    excess_RB, count_RB = excess_B[drawn_RB], count_B[drawn_RB]
    count_R = count_RB.sum(axis=1)
    shift_R = excess_RB.sum(axis=1) / count_R  # of the resample's mean against the mean
    excess_RB -= shift_R[:, None] * count_RB
    error_R = np.sqrt((excess_RB**2).sum(axis=1)) / count_R
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of equal blocks has no error of its own
        student_R = np.where(shift_R == 0, 0.0, shift_R / error_R)
    tail = (1 - confidence) / 2
    least, most = np.quantile(student_R, [tail, 1 - tail], method="inverted_cdf")  # a member: ∞ is not interpolated
    return float(mean - most * error), float(mean - least * error)


def _check(
    rows: Ints, champion_loss: Floats, challenger_loss: Floats, block: int, confidence: float, resamples: int
) -> None:
    lengths = (len(rows), len(champion_loss), len(challenger_loss))
    if len(set(lengths)) > 1:
        raise ValueError(f"expected as many losses as rows for both models, found {lengths}")
    if (np.diff(rows) < 0).any():
        raise ValueError("expected rows in ascending order, found one that is below the one before it")
    if block < 1 or resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            "expected a block and resamples of at least 1 and a confidence between 0 and 1, found"
            f" {block}, {resamples} and {confidence}"
        )
