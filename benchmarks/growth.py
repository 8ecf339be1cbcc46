"""What one more day costs on top of two years of history, against on top of two weeks.

Both histories end alike: the last two weeks are learned for real. Two years of learning would take an hour, so the
references, hidden states, outcomes, trend validations and training steps before those two weeks are synthetic: the real
two weeks again and again, moved back in time, to the volume that two years of learning leave behind (over a million
references). Candles, indicators and pivots are real throughout.
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import ETH, MODEL, TWO_YEARS, begin_learning_at, copied, new_folder, settings_in, warehouse_in
from benchmarks.homes import record as record_all
from benchmarks.loop import learn
from benchmarks.sampling import Sample, Samples
from hindsight.market.streams import Window

LIMIT = 1.2
ONE_DAY = Window(start=datetime(2023, 12, 31, tzinfo=UTC), end=TWO_YEARS.end)
FORTNIGHT = timedelta(days=14)
LIVE_CLOSES = 20  # of the day's end, one at a time
# What moves with time in each table, and what numbers its rows; both go back with every fortnight.
MOVED = {
    "inference_references": ("made_at", "target_time", "input_start", "input_end"),
    "hidden_states": ("made_at", "available_at"),
    "outcomes": ("made_at", "true_at", "settled_at"),
    "trend_validations": ("made_at", "settled_at", "start_time", "end_time"),
    "training_steps": ("event_time",),
}
NUMBERED = {
    "inference_references": ("checkpoint_id",),
    "training_steps": ("step", "checkpoint_before", "checkpoint_after"),
}
IDENTIFIED = ("inference_references", "outcomes", "trend_validations")


def measure(repeats: int) -> Figure:
    """Recording and learning 2023-12-31, in a process of its own, from copies of both histories."""
    histories = {"2 weeks": _history(ONE_DAY.start - FORTNIGHT), "2 years": _history(TWO_YEARS.start)}
    references = _lengthen(histories["2 years"])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in histories}
    for _ in range(repeats):
        for name, home in histories.items():
            found[name].append(fresh.run(one_more_day, {"OMP_NUM_THREADS": "1"}, home=str(copied(home))).result)
    samples = {name: Samples([Sample(run["wall"], run["processor"]) for run in runs]) for name, runs in found.items()}
    short, long = samples.values()
    ratio = long.median / short.median
    parts = {part: [median(run[part] for run in runs) for runs in found.values()] for part in found["2 weeks"][0]}
    return Figure(
        name="growth: one more day on top of 2 years against 2 weeks",
        goal=f"within {LIMIT:g}×",
        measured=f"{long.median:.2f} s against {short.median:.2f} s",
        ratio=f"{ratio:.2f}×",
        is_reached=ratio <= LIMIT,
        samples=samples,
        notes=(
            f"minimum {long.minimum / short.minimum:.2f}×, processor {long.processor / short.processor:.2f}×",
            *(f"{part}: {after:.3f} s against {before:.3f} s" for part, (before, after) in parts.items()),
            f"the long history holds {references:,} references, the older ones synthetic: the last two weeks repeated",
        ),
    )


def _history(since: datetime) -> Path:
    """A home recorded from `since` to the day before the last, whose last two weeks are learned."""
    home = new_folder("history")
    record_all(home, ETH, Window(start=since, end=ONE_DAY.start))
    begin_learning_at(home, ETH, ONE_DAY.start - FORTNIGHT)
    fresh.run(learn, {"OMP_NUM_THREADS": "1"}, home=str(home), stream=str(ETH), until=str(ONE_DAY.start), threads=1)
    return home


def _lengthen(home: Path) -> int:
    """Puts the real two weeks before themselves until two years are full; counts references."""
    times = (ONE_DAY.start - TWO_YEARS.start) // FORTNIGHT - 1
    for table in MOVED:
        with warehouse_in(home).writing() as con:
            con.execute(f"create temp table real as from {table}")
            con.execute(f"delete from {table}")
            for back in range(times, -1, -1):  # the oldest first, as they would have come
                _insert_moved(con, table, back)
    with warehouse_in(home).reading() as con:
        return con.execute("select count(*) from inference_references").fetchall()[0][0]


def _insert_moved(con: duckdb.DuckDBPyConnection, table: str, back: int) -> None:
    replaced = [f"{name} - to_days({back * FORTNIGHT.days}) as {name}" for name in MOVED[table]]
    if back:
        # Numbers before those of the real steps; ids only have to be new.
        replaced += [f"{name} - {back} * (select max({name}) from real) as {name}" for name in NUMBERED.get(table, ())]
        if table in IDENTIFIED:
            replaced.append(f"hash(inference_id, {back}) as inference_id")
    con.execute(f"insert into {table} select * replace ({', '.join(replaced)}) from real order by rowid")


def one_more_day(home: str) -> dict[str, Any]:
    """Seconds of recording and learning one day; of its last closes, one at a time, as they come live."""
    from hindsight.learn import learn as learn_in_hindsight

    settings = settings_in(home)
    almost = Window(start=ONE_DAY.start, end=ONE_DAY.end - LIVE_CLOSES * ETH.step)
    started, processor = time.perf_counter(), time.process_time()
    record_all(home, ETH, almost)
    recorded = time.perf_counter()
    report = learn_in_hindsight(settings, ETH, MODEL, almost.end)
    ended, used = time.perf_counter(), time.process_time() - processor
    now = almost.end
    while now < ONE_DAY.end:
        record_all(home, ETH, Window(start=now, end=now + ETH.step))
        now += ETH.step
        learn_in_hindsight(settings, ETH, MODEL, now, clock=lambda now=now: now)
    return {
        "wall": ended - started,
        "processor": used,
        "recording": recorded - started,
        "learning": ended - recorded,
        "learning outside the model": ended - recorded - report.seconds_inside,
        "one close alone, as it comes live": (time.perf_counter() - ended) / LIVE_CLOSES,
    }
