"""Recorded books: the chain holds, the best prices are the venue's own, and the rows are those of the recording."""

import gzip
import json
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.exchange.book_recordings import recorded_messages, recorded_seconds, replay
from hindsight.market.book_rows import BookSecond, book_frame
from hindsight.market.book_seconds import BookSeconds, BookSource
from hindsight.market.order_book import OrderBook

COINS = pytest.mark.parametrize(("coin", "size"), [("eth", 1.0), ("btc", 10.0)], ids=["ETH", "BTC"])


def table(shared_data: Path, coin: str, kind: str = "l2") -> Path:
    return shared_data / "order_book" / f"{coin}usdt_{kind}_binance_spot_20240808T2354.parquet"


def wire(shared_data: Path, coin: str) -> Path:
    return shared_data / "messages" / "binance_spot_recording" / f"binance_spot_{coin}usdt_20240808.gz"


@cache
def rows(path: Path, coin: str, size: float) -> list[BookSecond]:
    seconds = BookSeconds(
        symbol=f"{coin.upper()}/USDT",
        venue="binance",
        bucket_size=size,
        sources=[BookSource(name="binance", age_limit_ms=3000, quote_to_usd=1.0)],
        quote_to_usd=1.0,
    )
    found = list(recorded_seconds(path, seconds, "binance"))
    assert not seconds.refused["binance"]
    return found


@COINS
def test_the_rebuilt_best_prices_are_the_recorded_ones_and_never_cross(
    shared_data: Path, coin: str, size: float
) -> None:
    book, best = OrderBook(), []
    for message in replay(book, recorded_messages(table(shared_data, coin))):
        assert book.best_bid is not None
        assert book.best_ask is not None
        assert book.best_bid < book.best_ask
        if not message.is_snapshot:
            best.append((message.final_id, book.best_bid, book.best_ask))
    rebuilt = pl.DataFrame(best, schema=["u", "best_bid", "best_ask"], orient="row")
    quotes = pl.read_parquet(table(shared_data, coin, "quotes"), columns=["u", "bid", "ask"])
    both = rebuilt.join_asof(quotes, on="u", strategy="backward")
    is_same = (pl.col("best_bid") == pl.col("bid")) & (pl.col("best_ask") == pl.col("ask"))
    assert both.height > 6400
    assert both.select(is_same.mean()).item() >= 0.99
    assert book.old == 2


@COINS
def test_the_wire_and_the_table_of_one_recording_make_the_same_rows(shared_data: Path, coin: str, size: float) -> None:
    of_wire, of_table = rows(wire(shared_data, coin), coin, size), rows(table(shared_data, coin), coin, size)
    assert len(of_wire) > 300
    # In the table the snapshot carries the time of the update that it ends with.
    assert of_wire[1:] == of_table[1 : len(of_wire)]


@COINS
def test_every_recorded_second_has_its_row(shared_data: Path, coin: str, size: float) -> None:
    frame = book_frame(row.landed() for row in rows(table(shared_data, coin), coin, size))
    assert frame["second"].diff().drop_nulls().unique().to_list() == [timedelta(seconds=1)]
    assert frame.height == 650
    assert (frame["snapshots"].slice(1) >= 8).all()
    assert (frame["spread"] > 0).all()
    assert frame["age_ms"].max() < 250  # type: ignore[operator]
    assert frame.select((pl.col("anchor") <= pl.col("price")).all()).item()


@COINS
def test_rows_agree_with_a_book_kept_in_a_dictionary(shared_data: Path, coin: str, size: float) -> None:
    """Two roads: the last update before each second's end, in plain lines."""
    found = {row.second_ms: row for row in rows(table(shared_data, coin), coin, size)}
    sides: dict[str, dict[float, float]] = {"bid": {}, "ask": {}}
    levels = pl.read_parquet(table(shared_data, coin))
    snapshot = levels.filter("snapshot")
    after = levels.filter(~pl.col("snapshot") & (pl.col("u") > snapshot["u"][0]))
    compared, second = 0, None
    for ms, side, price, amount in pl.concat([snapshot, after]).select("ts_ms", "side", "price", "size").iter_rows():
        if second is not None and ms >= second + 1000 and (row := found.get(second)) is not None and compared < 100:
            bids, asks = sides["bid"], sides["ask"]
            middle = (max(bids) + min(asks)) / 2
            assert row.price == pytest.approx(middle, abs=1e-9)
            assert row.spread == pytest.approx(min(asks) - max(bids), abs=1e-9)
            plain = np.zeros(40)
            for at, resting in bids.items():
                if at >= row.anchor - 20 * size:
                    plain[min(19, int((at - row.anchor) // size) + 20)] += at * resting
            for at, resting in asks.items():
                if at < row.anchor + 20 * size:
                    plain[int((at - row.anchor) // size) + 20] += at * resting
            for amount_found, expected in zip(row.amounts, plain, strict=True):
                assert amount_found is None or amount_found == pytest.approx(expected, abs=0.02)
            compared += 1
        second = ms // 1000 * 1000
        if amount:
            sides[side][price] = amount
        else:
            sides[side].pop(price, None)
    assert compared == 100


def test_a_break_in_a_recorded_chain_leaves_a_hole_until_the_next_snapshot(tmp_path: Path) -> None:
    levels = {"bids": [["99.5", "1"]], "asks": [["100.5", "1"]]}
    changed = {"b": [["99.5", "2"]], "a": []}
    said: list[dict[str, object]] = [{"lastUpdateId": 10, **levels}]
    for number in range(11, 60):
        said.append({"data": {"e": "depthUpdate", "E": number * 500, "U": number, "u": number, **changed}})
    said.append({"data": {"e": "trade", "E": 30_000, "p": "100"}})
    del said[20]  # id 30, in the second that begins at 15 s
    said.insert(35, {"lastUpdateId": 45, **levels})
    path = tmp_path / "recording.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{number} {json.dumps(message)}\n" for number, message in enumerate(said))
    seconds = BookSeconds(
        symbol="ETH/USDT",
        venue="binance",
        bucket_size=1.0,
        sources=[BookSource(name="binance", age_limit_ms=1000, quote_to_usd=1.0)],
        quote_to_usd=1.0,
    )
    found = [row.second_ms // 1000 for row in recorded_seconds(path, seconds, "binance")]
    assert found == [*range(5, 15), *range(23, 29)]
