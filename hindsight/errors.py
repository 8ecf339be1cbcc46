"""Every error Hindsight raises, grouped by what the reader does about it.

HindsightError
├── WaitAndRetry              the world is busy or away: the same call may succeed later
│   ├── VenueUnavailable        the exchange did not answer, or asked us to slow down
│   │   └── AnswerUnreadable      it did answer, but not what it was asked for
│   ├── BookBroken              an order book lost its chain of updates, and needs a new snapshot
│   ├── WarehouseLocked         another program holds the DuckDB file
│   ├── LearnerBusy             another process is teaching this model of this stream
│   ├── ModelTimedOut           a model took too long over one batch, live
│   └── ModelRests              it did so a moment ago, and is not tried again yet
├── SkipThisCandle            one fact is unusable: leave it out, everything around it goes on
│   ├── ReferenceUnresolvable   what a reference saw is gone or no longer matches its digest
│   ├── FrameRefused            a frame is not of the shape that its model reads
│   ├── MessageRefused          a venue said something that cannot be: no number, a negative size, a wrong time
│   └── SegmentUnreadable       a landed segment is truncated, corrupt or of another schema
└── StopAndFix                a person has to change something first
    ├── SettingRefused          a setting is out of range or contradicts another
    │   └── ModelUnloadable       a package does not bring the model that it names
    ├── ArchiveUnreadable       a file is truncated, empty, of another schema or another symbol
    ├── HistoryOutOfOrder       history would be inserted before what has already been learned from
    ├── WarehouseUnusable       the DuckDB file is damaged, or the disk is full
    ├── WarehouseNewer          the DuckDB file was written by a newer Hindsight or DuckDB
    ├── HomeUnwritable          a file below HINDSIGHT_HOME cannot be written: the disk is full, or not ours
    ├── AlreadyRunning          another program is at it: it has the home, or the port
    ├── ModelBroken             a model says what is no number
    ├── DeviceFailed            the GPU is out of memory, or gone
    ├── CheckpointUnreadable    the weights are truncated or not what their JSON says
    └── SchemaMismatch          a checkpoint expects another input than the one at hand

A message says what was expected, what was found, the symbol, timeframe and window it concerns, and then the cure.
"""


class HindsightError(Exception):
    """Anything Hindsight raises on purpose."""


class WaitAndRetry(HindsightError):
    """The world is busy or away; the same call may succeed later."""


class VenueUnavailable(WaitAndRetry):
    """The exchange did not answer, or asked us to slow down."""


class AnswerUnreadable(VenueUnavailable):
    """The exchange did answer, but not what it was asked for."""


class BookBroken(WaitAndRetry):
    """An order book lost its chain of updates, and needs a new snapshot. `reason` is short enough to count by."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class WarehouseLocked(WaitAndRetry):
    """Another program holds the DuckDB file."""


class LearnerBusy(WaitAndRetry):
    """Another process is teaching this model of this stream."""


class ModelTimedOut(WaitAndRetry):
    """A model took longer over one batch than the setting allows, live; the others go on without it."""


class ModelRests(WaitAndRetry):
    """A model has timed out a moment ago, and is not tried again yet."""


class SkipThisCandle(HindsightError):
    """One fact is unusable: it is left out and counted, and everything around it goes on."""


class ReferenceUnresolvable(SkipThisCandle):
    """What a reference saw is gone, or no longer matches its digest."""


class FrameRefused(SkipThisCandle):
    """A frame is not of the shape that its model reads."""


class MessageRefused(SkipThisCandle):
    """A venue said something that cannot be: no number, a negative size, a wrong time. `reason` is one to count by."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SegmentUnreadable(SkipThisCandle):
    """A landed segment is truncated, corrupt or of another schema."""


class StopAndFix(HindsightError):
    """A person has to change something before this can work."""


class SettingRefused(StopAndFix):
    """A setting is out of range or contradicts another."""


class ModelUnloadable(SettingRefused):
    """A package does not bring the model that it names: it cannot be imported, or holds something else."""


class ArchiveUnreadable(StopAndFix):
    """An archive file is truncated, empty, of another schema or of another symbol."""


class HistoryOutOfOrder(StopAndFix):
    """History would be inserted before what has already been learned from."""


class WarehouseUnusable(StopAndFix):
    """The DuckDB file is damaged, or the disk is full."""


class WarehouseNewer(StopAndFix):
    """The DuckDB file was written by a newer Hindsight or a newer DuckDB."""


class HomeUnwritable(StopAndFix):
    """A file below HINDSIGHT_HOME cannot be written: the disk is full, or not ours."""


class AlreadyRunning(StopAndFix):
    """Another program is at it already: it has the home, or the port."""


class ModelBroken(StopAndFix):
    """A model says what is no number."""


class DeviceFailed(StopAndFix):
    """The GPU is out of memory, or gone."""


class CheckpointUnreadable(StopAndFix):
    """Weights are truncated or are not what the JSON beside them says."""


class SchemaMismatch(StopAndFix):
    """A checkpoint expects another input than the one at hand."""
