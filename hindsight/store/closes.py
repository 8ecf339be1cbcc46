"""What came of the closes at which a model or the gate was asked: what was decided, and what was refused."""

import duckdb
import polars as pl

from hindsight.store.rows import select


def decisions_made(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per stream: decisions, the last one, how many buy, sell and hold, and what they were made from."""
    sql = """
        select venue, symbol, timeframe, count(*) as decisions, max(made_at) as last,
               count(*) filter (action = 'buy') as buy,
               count(*) filter (action = 'sell') as sell,
               count(*) filter (action = 'hold') as hold,
               count(*) filter (used = 'mixture') as by_mixture,
               count(*) filter (used = 'equal') as by_equal_average,
               count(*) filter (used not in ('mixture', 'equal', 'none')) as by_one_model,
               count(*) filter (used = 'none') as nobody_spoke
        from decisions
        group by all
        order by venue, symbol, timeframe"""
    return select(con, sql)


def frames_refused(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per stream, model and block that was not whole: closes refused, the fewest parts of those needed, first, last."""
    sql = """
        select venue, symbol, timeframe, model, block, sum(closes)::bigint as closes, min(fewest) as fewest, need,
               min(first_at) as first, max(last_at) as last
        from refused_frames
        group by venue, symbol, timeframe, model, block, need
        order by venue, symbol, timeframe, model, first, block"""
    return select(con, sql)
