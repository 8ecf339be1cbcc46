"""What the gate remembers between two closes: the same bytes whatever the history was cut into.

Coefficients, discounted sums, and the closes whose answers have not come, as they stood when they were decided. Nothing
in it was known later than the close of `last_row`: answers are looked up when their time has come, never carried.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState:
    """The state of a gate over `models`, which looks at the features `context`; `data` is its record and what pends."""

    models: tuple[str, ...]
    context: tuple[str, ...]
    data: bytes

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) < len(self.models):
            raise ValueError(f"expected models, each once, found {', '.join(self.models) or 'none'}")
        rest = len(self.data) - self._record.itemsize
        if rest < 0 or rest % self._pending.itemsize:
            raise ValueError(
                f"a gate over {len(self.models)} models and {len(self.context)} features has {self._record.itemsize}"
                f" bytes and {self._pending.itemsize} for each pending close, found {len(self.data)}"
            )

    @classmethod
    def initial(cls, models: Sequence[str], context: Sequence[str]) -> Self:
        """The state before the first close: equal weights, and nothing known of anyone."""
        record = np.zeros((), _record(len(models), len(context)))
        record["last_row"] = -1
        record["shared"][2, 0] = 1.0
        return cls(models=tuple(models), context=tuple(context), data=record.tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The state that `to_bytes` wrote. Raises ValueError for bytes of another version or size."""
        head, _, rest = bytes(data).partition(b"\n")
        try:
            header = json.loads(head)
            version, models, context = header["version"], tuple(header["models"]), tuple(header["context"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"expected the state of a gate, found {len(data)} bytes without its first line") from None
        if version != VERSION:
            raise ValueError(f"gate state of version {version}, expected {VERSION}; mix the stored predictions again")
        return cls(models=models, context=context, data=rest)

    def to_bytes(self) -> bytes:
        """The state as bytes, the same on every machine: a line of JSON with the names, then the numbers."""
        header = {"version": VERSION, "models": self.models, "context": self.context}
        return json.dumps(header).encode() + b"\n" + self.data

    @property
    def last_row(self) -> int:
        """The row of the last close that was decided; -1 before the first."""
        return int(self.as_arrays()[0]["last_row"])

    @property
    def needs_from(self) -> int:
        """The first row whose close has to be handed in next: that of the oldest one without an answer."""
        pending = self.as_arrays()[1]
        return int(pending["row"][0]) if len(pending) else self.last_row + 1

    def as_arrays(self) -> tuple[Any, Any]:
        """Writable copies: the record, and one row for each pending close."""
        size = self._record.itemsize
        record = np.frombuffer(self.data[:size], self._record).copy()[0]
        return record, np.frombuffer(self.data[size:], self._pending).copy()

    def with_arrays(self, record: Any, pending: Any) -> Self:
        """The state of the same models and features that holds these arrays."""
        return type(self)(models=self.models, context=self.context, data=record.tobytes() + pending.tobytes())

    def for_models(self, models: Sequence[str], context: Sequence[str]) -> Self:
        """The state for another list of models, by name: who stays keeps all it has, who is new starts with nothing.

        With other features of context, nothing can be kept: the gate starts anew.
        """
        if (tuple(models), tuple(context)) == (self.models, self.context):
            return self
        new = self.initial(models, context)
        if tuple(context) != self.context:
            return new
        (record, pending), (old, waiting) = new.as_arrays(), self.as_arrays()
        to = [place for place, name in enumerate(models) if name in self.models]
        of = [self.models.index(models[place]) for place in to]
        for name in ("last_row", "fallen", "shared"):
            record[name] = old[name]
        for name in ("own", "advantage"):
            record[name][to] = old[name][of]
        record["trail"][[*to, -1]] = old["trail"][[*of, -1]]
        waiting = waiting[np.isfinite(waiting["buy"][:, of]).any(axis=1)]
        pending = np.zeros(len(waiting), new._pending)
        pending["buy"] = np.nan
        for name in ("row", "context", "mixture"):
            pending[name] = waiting[name]
        for name in ("buy", "weights", "skill"):
            pending[name][:, to] = waiting[name][:, of]
        return new.with_arrays(record, pending)

    @property
    def _record(self) -> np.dtype:
        return _record(len(self.models), len(self.context))

    @property
    def _pending(self) -> np.dtype:
        return _pending(len(self.models), len(self.context))


def columns(context: int) -> int:
    """Width of the context as the gate reads it: 1, each feature, and for each whether it is unknown."""
    return 1 + 2 * context


def _record(models: int, context: int) -> np.dtype:
    return np.dtype(
        [
            ("last_row", "<i8"),
            ("fallen", "<i8", (1,)),
            ("shared", "<f8", (3, 2)),
            ("own", "<f8", (models, columns(context), 2)),
            ("advantage", "<f8", (models, 2)),
            ("trail", "<f8", (models + 1, 5)),
        ]
    )


def _pending(models: int, context: int) -> np.dtype:
    return np.dtype(
        [
            ("row", "<i8"),
            ("buy", "<f8", (models,)),
            ("context", "<f8", (columns(context),)),
            ("weights", "<f8", (models,)),
            ("skill", "<f8", (models,)),
            ("mixture", "<f8"),
        ]
    )
