"""Recording two years of two streams from Parquet, against DuckDB's own `insert … select` from the same files."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import CANDLES, CANDLES_EACH, FILES, TWO_YEARS, new_folder, settings_in, warehouse_in
from benchmarks.sampling import Sample, take_turns, timed
from benchmarks.timers import watching
from hindsight.exchange.sources import open_source
from hindsight.record import record_candles

LIMIT = 2.0
INSERT_SELECT = """
    insert into candles
    select $venue, $symbol, $timeframe, make_timestamptz(ts_ms * 1000), open, high, low, close, volume, 0,
           make_timestamptz((ts_ms + 60000) * 1000)
    from read_parquet($file)"""


def measure(repeats: int) -> Figure:
    """The asset and the verb below it, each against DuckDB alone."""
    inside: list[float] = []

    def asset() -> Sample:
        home = new_folder("asset")
        found = fresh.run(materialize, environment=_environment(home), home=str(home)).result
        shutil.rmtree(home)
        inside.append(found["inside"] / found["wall"])
        return Sample(found["wall"], found["processor"])

    contenders = {"DuckDB's insert … select": _rival, "record_candles": _verb, "asset `candles`": asset}
    samples = take_turns(repeats, contenders, warm_ups=("DuckDB's insert … select", "record_candles"))
    rival, verb, whole = samples.values()
    share = 1 - sorted(inside)[len(inside) // 2]
    ratio = whole.median / rival.median
    return Figure(
        name="candles → DuckDB, 2 × 1,051,120 rows, through the asset",
        goal=f"within {LIMIT:g}× of DuckDB alone",
        measured=f"{whole.median:.2f} s, DuckDB alone {rival.median:.2f} s",
        ratio=f"{ratio:.2f}×",
        is_reached=ratio <= LIMIT,
        samples=samples,
        notes=(
            f"asset / DuckDB: median {ratio:.2f}, minimum {whole.minimum / rival.minimum:.2f}, "
            f"processor {whole.processor / rival.processor:.2f}",
            f"record_candles / DuckDB: median {verb.median / rival.median:.2f}, minimum "
            f"{verb.minimum / rival.minimum:.2f}, processor {verb.processor / rival.processor:.2f}",
            f"{share:.0%} of the asset is outside record_candles: Dagster's bookkeeping of 48 partitions and their "
            f"figures, about {share * whole.median / 48 * 1000:.0f} ms each",
        ),
    )


def _rival() -> Sample:
    home = new_folder("rival")
    warehouse = warehouse_in(home)
    with warehouse.writing():
        pass  # the file and its tables are made before, on all sides

    def insert() -> None:
        with warehouse.writing() as con:
            for stream, file in FILES.items():
                key = {"venue": stream.venue, "symbol": stream.symbol, "timeframe": stream.timeframe}
                con.execute(INSERT_SELECT, {**key, "file": str(file)})

    return _checked(timed(insert), home)


def _verb() -> Sample:
    home = new_folder("verb")
    warehouse, source = warehouse_in(home), open_source(settings_in(home))
    with warehouse.writing():
        pass

    def record() -> None:
        for stream in FILES:
            record_candles(warehouse, source, stream, TWO_YEARS, TWO_YEARS.end)

    return _checked(timed(record), home)


def _checked(sample: Sample, home: Path) -> Sample:
    """`sample`, after a look at whether all candles are there; the home is removed."""
    with warehouse_in(home).reading() as con:
        rows = con.execute("select count(*) from candles").fetchall()[0][0]
    if rows != 2 * CANDLES_EACH:
        raise RuntimeError(f"expected {2 * CANDLES_EACH:,} candles in {home}, found {rows:,}")
    shutil.rmtree(home)
    return sample


def _environment(home: Path) -> dict[str, str]:
    return {"HINDSIGHT_HOME": str(home), "HINDSIGHT_SOURCE": f"archive:{CANDLES}"}


def materialize(home: str) -> dict[str, Any]:
    """Materialises the asset over 24 months of both streams on a Dagster instance in `home`, a run per stream."""
    import dagster as dg

    import assets.candles as module
    from assets.partitions import range_tags
    from pipelines.home.instance import open_instance
    from resources.exchange import SourceResource
    from resources.progress import Progress
    from resources.scope import ScopeResource
    from resources.warehouse import WarehouseResource

    os.environ["HINDSIGHT_HOME"] = home
    instance = open_instance(settings_in(home))
    resources = {
        "scope": ScopeResource(),
        "source": SourceResource(),
        "warehouse": WarehouseResource(),
        "progress": Progress(),
    }
    with warehouse_in(home).writing():
        pass
    with watching([(module, "record_candles", "inside")]) as spent:
        wall, processor = time.perf_counter(), time.process_time()
        for stream in FILES:
            done = dg.materialize(
                [module.candles], instance=instance, resources=resources, tags=range_tags(stream, TWO_YEARS)
            )
            if not done.success:
                raise RuntimeError(f"the run of {stream} failed")
        took = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    _checked(Sample(0, 0), Path(home))
    Path(home).mkdir()
    return {**took, "inside": spent["inside"]}
