"""The gate itself, in the part of Python that numba compiles: arrays, numbers and loops.

The same function runs plain for a close and compiled for a year; all it remembers is in the arrays it is given.

Legend: N closes, the first ones decided before and carried; M models; K the context: 1, the features, what is unknown.
Coefficients stand beside the sum of their squared gradients, [.., 2].

The score of a model is linear in three things of its own, with coefficients that all models share: its logit, the size
of that, its skill; and in the context, with coefficients of its own. The weights are the softmax of the scores. Every
close whose answer has come moves the coefficients against the gradient of its log loss.
Source of the gate: Jacobs et al. 1991, doi:10.1162/neco.1991.3.1.79; of the step: Duchi et al. 2011, AdaGrad,
https://jmlr.org/papers/v12/duchi11a.html, here with sums that forget.

Skill is S / sqrt(V + SKILL_PRIOR), of the discounted sums S of a model's log-loss advantage over chance and V of its
square: the discounted mean of the advantage, in standard errors, held down while V is small. It starts at 0, and its
coefficient at 1. In nats instead, the softmax would be Bayes' weights, and luck would tell loud models apart.
"""

import math

import numpy as np

NOBODY, EQUAL, MIXTURE = -3, -2, -1  # what was used; from 0 on it is the model of that number
LOGIT_SCALE, LOGIT_LIMIT = 0.25, 4.0
SKILL_PRIOR = 3.0  # squared nats
GRADIENT_PRIOR = 5.0  # a sum of squares below which steps are small: where little is at stake, little moves
NEGLIGIBLE = 1e-6  # nats: no loss at all, but the rounding of one
REACH = 7.0  # no score falls further below the highest: a weight stays above e^-7 of it, and can come back


def walk(
    first: int,
    rows: np.ndarray,
    buy: np.ndarray,
    context: np.ndarray,
    up: np.ndarray,
    settled: np.ndarray,
    order: np.ndarray,
    weights: np.ndarray,
    skill: np.ndarray,
    mixture: np.ndarray,
    used: np.ndarray,
    probability: np.ndarray,
    contributions: np.ndarray,
    fallen: np.ndarray,
    shared: np.ndarray,
    own: np.ndarray,
    advantage: np.ndarray,
    trail: np.ndarray,
    learning_rate: float,
    keep_gate: float,
    keep_skill: float,
    keep_trail: float,
    band: float,
    release: float,
    least: float,
) -> int:
    """How many of the answers in `order` were learned from: those known before the close of the last row.

    Given: `rows` [N], `buy` [N, M] (NaN: no prediction), `context` [N, K], `up` [N] (-1: no answer), `settled` [N], and
    `order`, the closes by when their answers came. Closes before `first` come with `weights` [N, M], `skill` [N, M] and
    `mixture` [N] of their decision; the others get theirs, and `used` [N], `probability` [N], `contributions` [N, M].
    Carried and changed in place: `fallen` [1] (whether the mixture is being replaced), `shared` [3, 2] and `own`
    [M, K, 2], the coefficients, `advantage` [M, 2] (S and V), and `trail` [M + 1, 5], for each model and for the equal
    average: sums, discounted at every close and added to where it spoke, of 1, of 1 by the square of the discount, of
    how much more the mixture lost, of the square of that, and of what it lost itself. `keep_…` is what a close leaves
    of the sums of before; `band`, `release` and `least` are those of the rule.
    """
    models, features = buy.shape[1], context.shape[1]
    learned = 0
    slope = np.zeros(3)
    for i in range(first, len(rows)):
        # What became known at earlier closes than this one.
        while learned < len(order) and settled[order[learned]] < rows[i]:
            k = order[learned]
            learned += 1
            if up[k] < 0:
                continue
            total, heard = 0.0, 0
            for m in range(models):
                if buy[k, m] == buy[k, m]:
                    total += buy[k, m]
                    heard += 1
            said = mixture[k] if up[k] == 1 else 1.0 - mixture[k]
            slope[:] = 0.0
            for m in range(models + 1):
                trail[m, 0] *= keep_trail
                trail[m, 1] *= keep_trail * keep_trail
                trail[m, 2] *= keep_trail
                trail[m, 3] *= keep_trail
                trail[m, 4] *= keep_trail
                theirs = buy[k, m] if m < models else total / heard
                if theirs != theirs:
                    continue
                if up[k] == 0:
                    theirs = 1.0 - theirs
                more = math.log(theirs) - math.log(said)
                trail[m, 0] += 1.0
                trail[m, 1] += 1.0
                trail[m, 2] += more
                trail[m, 3] += more * more
                trail[m, 4] -= math.log(theirs)
                if m == models:
                    continue
                gain = math.log(2.0) + math.log(theirs)
                advantage[m, 0] = advantage[m, 0] * keep_skill + gain
                advantage[m, 1] = advantage[m, 1] * keep_skill * keep_skill + gain * gain
                pull = weights[k, m] * (1.0 - theirs / said)  # the slope of the loss along this model's score
                logit = math.log(buy[k, m] / (1.0 - buy[k, m])) / LOGIT_SCALE
                logit = min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT)
                slope[0] += pull * logit
                slope[1] += pull * abs(logit)
                slope[2] += pull * skill[k, m]
                for c in range(features):
                    each = pull * context[k, c]
                    own[m, c, 0] *= keep_gate
                    own[m, c, 1] = own[m, c, 1] * keep_gate + each * each
                    if each != 0.0:
                        own[m, c, 0] -= learning_rate * each / math.sqrt(own[m, c, 1] + GRADIENT_PRIOR)
            for s in range(3):
                start = 1.0 if s == 2 else 0.0
                shared[s, 1] = shared[s, 1] * keep_gate + slope[s] * slope[s]
                step = learning_rate * slope[s] / math.sqrt(shared[s, 1] + GRADIENT_PRIOR)
                shared[s, 0] = start + (shared[s, 0] - start) * keep_gate - step
            shared[2, 0] = max(shared[2, 0], 0.0)  # skill never counts against a model

        # The decision of this close.
        highest, total, heard = -np.inf, 0.0, 0
        for m in range(models):
            if buy[i, m] != buy[i, m]:
                continue
            skill[i, m] = advantage[m, 0] / math.sqrt(advantage[m, 1] + SKILL_PRIOR)
            logit = math.log(buy[i, m] / (1.0 - buy[i, m])) / LOGIT_SCALE
            logit = min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT)
            score = shared[0, 0] * logit + shared[1, 0] * abs(logit) + shared[2, 0] * skill[i, m]
            for c in range(features):
                score += own[m, c, 0] * context[i, c]
            weights[i, m] = score
            highest = max(highest, score)
            total += buy[i, m]
            heard += 1
        if heard == 0:
            continue
        equal, mass = total / heard, 0.0
        for m in range(models):
            if buy[i, m] == buy[i, m]:
                weights[i, m] = math.exp(max(weights[i, m] - highest, -REACH))
                mass += weights[i, m]
        mixture[i] = 0.0
        for m in range(models):
            if buy[i, m] == buy[i, m]:
                weights[i, m] /= mass
                mixture[i] += weights[i, m] * buy[i, m]

        # Whether the mixture has lost to the best model, or to the equal average, by more than noise.
        best, most, chosen, chosen_most = -1, -np.inf, -1, -np.inf
        for m in range(models + 1):
            if trail[m, 0] < least:
                continue
            mean = trail[m, 2] / trail[m, 0]
            if m < models and mean > most:
                best, most = m, mean
            speaks = m == models or buy[i, m] == buy[i, m]
            if speaks and mean > chosen_most:
                chosen, chosen_most = m, mean
        loses, is_back = False, True
        for m in (best, models):
            if m < 0 or trail[m, 0] < least:
                continue
            mean, share = trail[m, 2] / trail[m, 0], trail[m, 1] / (trail[m, 0] * trail[m, 0])
            variance = max(trail[m, 3] / trail[m, 0] - mean * mean, 0.0) / (1.0 - share)
            noise = math.sqrt(variance * share)
            loses = loses or mean > band * noise + NEGLIGIBLE
            is_back = is_back and mean <= release * noise + NEGLIGIBLE
        if fallen[0] == 0 and loses:
            fallen[0] = 1
        elif fallen[0] == 1 and is_back:
            fallen[0] = 0

        if fallen[0] == 0:
            used[i], probability[i] = MIXTURE, mixture[i]
        elif chosen < 0 or chosen == models:
            used[i], probability[i] = EQUAL, equal
        else:
            used[i], probability[i] = chosen, buy[i, chosen]
        for m in range(models):
            if buy[i, m] == buy[i, m]:
                if fallen[0] == 0:
                    contributions[i, m] = weights[i, m]
                elif used[i] == EQUAL:
                    contributions[i, m] = 1.0 / heard
                else:
                    contributions[i, m] = 1.0 if m == chosen else 0.0
    return learned
