"""Each question about the order book finds the row planted for it, and none among rows that were made properly."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from hindsight.market.book_rows import book_frame
from hindsight.market.book_seconds import BookSeconds, BookSource
from hindsight.market.streams import Stream, Window, from_ms
from hindsight.store import book_questions as questions
from hindsight.store.book_tables import write_order_book
from hindsight.store.warehouse import Warehouse

START_MS = 1_723_161_600_000
WINDOW = Window(start=from_ms(START_MS), end=from_ms(START_MS) + timedelta(seconds=150))
MINUTES = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
THAT = "second = timestamptz '2024-08-09 00:01:40+00'"
PLANTED = {
    questions.book_seconds_standing_twice: [f"insert into order_book from order_book where {THAT}"],
    questions.malformed_books: [
        f"update order_book set price = 'nan' where {THAT}",
        f"update order_book set anchor = anchor - bucket_size where {THAT}",
        f"update order_book set amounts = list_transform(amounts, lambda each: -1)::float[40] where {THAT}",
        f"update order_book set amounts = list_transform(amounts, lambda each: 'nan')::float[40] where {THAT}",
        f"update order_book set venues = [] where {THAT}",
        f"update order_book set spread = 0 where {THAT}",
        f"update order_book set spread = -0.1 where {THAT}",
        f"update order_book set spread = 'nan' where {THAT}",
        f"update order_book set spread = 'inf', venues = ['binance', 'kraken'] where {THAT}",
    ],
    questions.books_seeing_the_future: [
        f"update order_book set age_ms = 0 where {THAT}",
        f"update order_book set age_ms = 61000 where {THAT}",
        f"update order_book set known_at = second where {THAT}",
        f"update order_book set snapshots = 0 where {THAT}",
    ],
    questions.imbalances_off_their_book: [
        f"update order_book set imbalance = 'nan' where {THAT}",
        f"update order_book set imbalance = 0.9 where {THAT}",
        f"update order_book set imbalance = -0.9 where {THAT}",
        f"update order_book set imbalance = null where {THAT}",
    ],
    questions.imbalance_means_off_their_seconds: [
        f"update order_book set imbalance_5 = imbalance_5 + 0.01 where {THAT}",
        f"update order_book set imbalance_60 = imbalance_60 - 0.01 where {THAT}",
        "update order_book set imbalance_60 = 0.5 where second = timestamptz '2024-08-09 00:00:20+00'",
    ],
}


@pytest.fixture
def recorded(warehouse: Warehouse) -> Warehouse:
    """150 seconds of a book that moves, with a pause of ten seconds in which it is carried forward for three."""
    chance = np.random.default_rng(5)
    rows = BookSeconds(
        symbol="ETH/USDT",
        venue="binance",
        bucket_size=1.0,
        sources=[BookSource(name="binance", age_limit_ms=3000, quote_to_usd=1.0)],
        quote_to_usd=1.0,
    )
    middle = 2683.8
    for after_ms in (*range(0, 60_000, 250), *range(70_000, 150_000, 250)):
        middle += chance.normal() * 0.1
        sides = [
            np.column_stack([middle + sign * np.arange(0.05, 25, 0.25), chance.random(100) * 10]) for sign in (-1, 1)
        ]
        assert rows.add("binance", START_MS + after_ms, *sides) is None
    found = [row.landed() for row in rows.rows(START_MS + 150_000)]
    assert len(found) == 142
    with warehouse.writing() as con:
        write_order_book(con, book_frame(found))
    return warehouse


def ask(warehouse: Warehouse, question) -> pl.DataFrame:
    with warehouse.reading() as con:
        return question(con, MINUTES, WINDOW)


def test_a_row_is_planted_for_every_question() -> None:
    assert set(PLANTED) == set(questions.ORDER_BOOK_QUESTIONS)


@pytest.mark.parametrize("question", PLANTED, ids=lambda question: question.__name__)
def test_a_proper_book_answers_no_question(recorded: Warehouse, question) -> None:
    assert ask(recorded, question).is_empty()
    assert question.__doc__.partition("\n")[0].endswith("?")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("spread = null", id="of an older segment"),
        pytest.param("spread = 0, venues = ['binance', 'kraken']", id="venues that touch"),
        pytest.param("spread = -0.1, venues = ['binance', 'kraken']", id="venues that overlap"),
    ],
)
def test_a_spread_may_be_unknown_and_that_of_several_venues_zero_or_less(recorded: Warehouse, change: str) -> None:
    with recorded.writing() as con:
        con.execute(f"update order_book set {change} where {THAT}")
    assert ask(recorded, questions.malformed_books).is_empty()


@pytest.mark.parametrize(("question", "sql"), [(question, sql) for question, every in PLANTED.items() for sql in every])
def test_a_question_finds_the_row_planted_for_it(recorded: Warehouse, question, sql: str) -> None:
    with recorded.writing() as con:
        con.execute(sql)
    found = ask(recorded, question)
    assert not found.is_empty()
