"""What the predictions of four models and the decision take on disk, and what of it each table and column takes.

They are learned and decided for real, in pieces of 2,880 closes as `learn` writes them, model after model; batches are
small, for how well the weights learn makes no difference to the size. Beside it the same rows in the order in which a
live run writes them: close after close.
"""

from datetime import timedelta
from typing import Any

import duckdb

from benchmarks import fresh
from benchmarks.disk import by_column
from benchmarks.figure import Figure
from benchmarks.homes import ETH, TWO_YEARS, new_folder, record, settings_in, warehouse_in
from benchmarks.made_up import MODELS
from hindsight.market.streams import Window

LIMIT, COPIED = 1200.0, 78_000.0
DAYS = 14
PREDICTION = ("inference_references", "hidden_states", "decisions", "experiences")
ANSWERS = ("outcomes", "trend_validations", "training_steps")
SMALLEST = 1.0  # bytes a close of a column that is named


def measure(repeats: int) -> Figure:
    """Bytes in use of each table over the closes of DAYS days of ETH/USDT 1m. Sizes do not vary."""
    home = new_folder("predictions")
    window = Window(start=TWO_YEARS.start, end=TWO_YEARS.start + timedelta(days=DAYS))
    record(home, ETH, window)
    fresh.run(learn_all, {"OMP_NUM_THREADS": "1"}, home=str(home), until=window.end.isoformat())
    with warehouse_in(home).reading() as con:
        sizes, closes = _sizes(con), _closes(con)
    live = new_folder("live-order")
    with warehouse_in(home).reading() as con:
        _rewrite(con, live)
    with warehouse_in(live).reading() as con:
        in_live_order = _sizes(con)
    each = _total(sizes, PREDICTION) / closes
    return Figure(
        name="the predictions of four models and the decision on disk, a close",
        goal=f"under {LIMIT:g} bytes, against {COPIED:g} of a copied frame",
        measured=f"{each:.0f} bytes",
        ratio=f"{each / LIMIT:.2f} of the limit, 1/{COPIED / each:.0f} of a copied frame",
        is_reached=each < LIMIT,
        notes=(
            f"{closes:,} closes; in the order of a live run {_total(in_live_order, PREDICTION) / closes:.0f} bytes",
            *(
                f"{table}: {_total(sizes, [table]) / closes:.1f} bytes a close"
                f" (live {_total(in_live_order, [table]) / closes:.1f}): "
                + ", ".join(
                    f"{name} {size / closes:.1f} ({how})"
                    for name, how, size in sizes[table]
                    if size / closes >= SMALLEST
                )
                for table in PREDICTION
            ),
            *(
                f"beside it, what came of them: {table} {_total(sizes, [table]) / closes:.1f} bytes a close"
                for table in ANSWERS
            ),
        ),
    )


def learn_all(home: str, until: str) -> dict[str, Any]:
    """All models, then the decisions."""
    from datetime import datetime

    from hindsight.decide import decide
    from hindsight.learn import learn

    end = datetime.fromisoformat(until)
    settings = settings_in(home, models=MODELS, batch_size=8, replay_minimum=0, promote_every=2880)
    for model in MODELS:
        learn(settings, ETH, model, end)
    return {"decided": decide(settings, ETH, end).decided}


def _rewrite(con: duckdb.DuckDBPyConnection, home: object) -> None:
    """The tables of `con` in a warehouse of their own, ordered as live runs write them."""
    warehouse = warehouse_in(str(home))
    for table in (*PREDICTION, *ANSWERS):
        time = "event_time" if table == "training_steps" else "settled_at" if table in ANSWERS else "made_at"
        order = f"{time}" if table == "decisions" else f"{time}, model"
        rows = con.sql(f"select * from {table} order by {order}").to_arrow_table()
        with warehouse.writing() as other:
            other.register("rows_of_table", rows)
            other.execute(f"insert into {table} select * from rows_of_table")


def _sizes(con: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[str, str, float]]]:
    return {table: by_column(con, table) for table in (*PREDICTION, *ANSWERS)}


def _closes(con: duckdb.DuckDBPyConnection) -> int:
    return con.execute("select count(distinct made_at) from inference_references").fetchall()[0][0]


def _total(sizes: dict[str, list[tuple[str, str, float]]], tables: object) -> float:
    return sum(size for table in tables for _, _, size in sizes[table])
