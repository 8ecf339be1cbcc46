"""Questions about the order book: each returns what is wrong in one window of one market.

Read like `questions.py`; the table knows no timeframe, so the streams of one market get the same answer.
"""

import polars as pl

from hindsight.market.book_means import SPANS
from hindsight.market.buckets import NEAR, SIDE
from hindsight.market.streams import Stream, Window
from hindsight.store.questions import Connection, ask

WITHIN = "venue = $venue and symbol = $symbol and second >= $from and second < $to"
# Amounts are rounded to cents, and imbalances to millionths.
DOLLARS, SHARE = 1.0, 2e-6
MOST_AGE_MS = 60_000  # the setting allows no more


def book_seconds_standing_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which seconds of the order book are stored more than once?"""
    sql = f"""
        select second, count(*) as times
        from order_book
        where {WITHIN}
        group by second
        having count(*) > 1
        order by second"""
    return ask(con, sql, stream, window)


def malformed_books(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which books have an amount, a price or a spread that cannot be, or an anchor that is not the price's?

    One venue's book is never crossed; those of several may be.
    """
    sql = f"""
        select second, price, spread, bucket_size, anchor, amounts, snapshots, age_ms, venues
        from order_book
        where {WITHIN}
          and not (
            isfinite(price) and price > 0 and isfinite(bucket_size) and bucket_size > 0
            and abs(anchor - floor(price / bucket_size + 1e-9) * bucket_size) <= 1e-6 * bucket_size
            and coalesce(list_min(amounts), 0) >= 0 and coalesce(isfinite(list_sum(amounts)), true)
            and coalesce(isfinite(spread) and (spread > 0 or len(venues) > 1), true)
            and snapshots >= 0 and len(venues) > 0)
        order by second"""
    return ask(con, sql, stream, window)


def books_seeing_the_future(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which books used one from after their second or long before it, or were known at another time than its end?"""
    sql = f"""
        select second, known_at, age_ms, snapshots
        from order_book
        where {WITHIN}
          and (
            age_ms <= 0 or age_ms > $most_age_ms or known_at <> second + interval 1 second
            or date_trunc('second', second) <> second or (snapshots = 0 and age_ms <= 1000))
        order by second"""
    return ask(con, sql, stream, window, most_age_ms=MOST_AGE_MS)


def imbalances_off_their_book(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which imbalances cannot come from the amounts beside them?

    Within 5 sizes of the price lie 4 to 5 whole buckets of bids and 5 to 6 of asks: that bounds it on both sides.
    """
    near, side = NEAR, SIDE
    sql = f"""
        with bounds as (
          select second, price, imbalance,
                 list_sum(amounts[{side - near + 2}:{side}]) as least_bid,
                 list_sum(amounts[{side - near + 1}:{side}]) as most_bid,
                 list_sum(amounts[{side + 1}:{side + near}]) as least_ask,
                 list_sum(amounts[{side + 1}:{side + near + 1}]) as most_ask
          from order_book
          where {WITHIN} and list_count(amounts[{side - near + 1}:{side + near + 1}]) = {2 * near + 1})
        select *
        from bounds
        where imbalance not between -1 and 1
           or (imbalance + $share) * (least_bid + most_ask) < least_bid - most_ask - $dollars
           or (imbalance - $share) * (most_bid + least_ask) > most_bid - least_ask + $dollars
           or (imbalance is null and least_bid + least_ask > $dollars)
        order by second"""
    return ask(con, sql, stream, window, dollars=DOLLARS, share=SHARE)


def imbalance_means_off_their_seconds(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which means of the imbalance are not those of the seconds that are stored before them?"""
    means = ", ".join(
        f"""avg(imbalance) over (
                 order by second range between interval {span - 1} seconds preceding and current row) as mean_{span},
               count(imbalance) over (
                 order by second range between interval {span - 1} seconds preceding and current row) as count_{span}"""
        for span in SPANS
    )
    wrong = " or ".join(
        f"abs(imbalance_{span} - mean_{span}) > 1e-5 or (imbalance_{span} is not null and count_{span} < 0.8 * {span})"
        for span in SPANS
    )
    sql = f"""
        with spans as (
          select second, {", ".join(f"imbalance_{span}" for span in SPANS)}, {means}
          from order_book
          where venue = $venue and symbol = $symbol
            and second >= $from - interval {max(SPANS)} seconds and second < $to)
        select *
        from spans
        where second >= $from and ({wrong})
        order by second"""
    return ask(con, sql, stream, window)


ORDER_BOOK_QUESTIONS = (
    book_seconds_standing_twice,
    malformed_books,
    books_seeing_the_future,
    imbalances_off_their_book,
    imbalance_means_off_their_seconds,
)
