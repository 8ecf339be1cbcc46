"""What a learner remembers of its references while the loop runs: arrays beside the labels.

Legend: N references, one per tape row from `first_row` on; D width of a hidden state; E extras.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hindsight.inference.frames import Frames


@dataclass(slots=True, kw_only=True)
class Memory:
    """What is known of the references made at rows first_row, first_row + 1, …: arrays beside the labels."""

    first_row: int
    predictable: NDArray[np.bool_]  # [N] the frame is whole and has a scale
    norm_params: Frames  # [N, 4]
    made: NDArray[np.bool_]  # [N] a reference exists
    trusted: NDArray[np.bool_]  # [N] it resolves to what its digest says; the others are settled, but not trained on
    predictions: Frames  # [N, 17]
    hidden: NDArray[np.float16]  # [N, D] of the references made in this pass
    extras: Frames  # [N, E] the same
    served: Frames  # [N, 5] what the serving weights say, in the columns SERVED of predictions; NaN while none serve
    served_by: NDArray[np.int32]  # [N] their checkpoint; -1 while none serve
    trend: NDArray[np.int8]  # [N] the likeliest one in `predictions`
    checkpoint: NDArray[np.int32]  # [N] that made it
    uses: NDArray[np.int16]  # [N] times trained on
    trained_as_candle: int  # every reference before this row has been *new* in a candle step
    priorities: NDArray[np.float64] = field(init=False)  # [N] of experiences; NaN: not known, or there is none
    prioritised: int = field(init=False, default=0)  # every experience before this position has its priority

    def __post_init__(self) -> None:
        self.priorities = np.full(len(self.made), np.nan)
