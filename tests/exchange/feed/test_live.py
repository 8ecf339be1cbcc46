"""A feed beside a venue, over real sockets: what lands is what the market was."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

ETH_1M, ETH_1S = "simulated ETH/USDT 1m", "simulated ETH/USDT 1s"
BTC_1M, BTC_1S = "simulated BTC/USDT 1m", "simulated BTC/USDT 1s"


def test_candles_trades_and_books_of_every_market_land(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        everything = {"symbols": ("ETH/USDT", "BTC/USDT"), "timeframes": ("1s", "1m"), "books": True}
        async with live(speed=40.0, **everything) as run:
            streams = (ETH_1M, ETH_1S, BTC_1M, BTC_1S)
            for stream in streams:
                await run.landed(stream, 8 if stream.endswith("s") else 2)
            await run.until(lambda: {row["symbol"] for row in run.rows("order_book")} == {"ETH/USDT", "BTC/USDT"})
            await run.until(lambda: len(run.rows("trades")) > 100)
            await run.end()
            for stream in streams:
                rows = run.assert_whole(stream)
                assert not run.part(f"{stream} candles")["refused"]
                assert "flag" in {row["closed_by"] for row in rows}
            for symbol in ("ETH/USDT", "BTC/USDT"):
                ids = [row["trade_id"] for row in run.rows("trades") if row["symbol"] == symbol]
                assert ids == list(range(ids[0], ids[0] + len(ids)))
                seconds = [row["second_ms"] for row in run.rows("order_book") if row["symbol"] == symbol]
                assert all(earlier < later for earlier, later in pairwise(seconds))

    asyncio.run(scene())


def test_the_first_start_fetches_history_that_ends_where_the_socket_goes_on(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(first_candles=2500) as run:
            await run.landed(ETH_1M, 2503)
            rows = run.assert_whole(ETH_1M)
            assert rows[0]["closed_by"] == "rest"
            assert rows[-1]["closed_by"] == "flag"

    asyncio.run(scene())


def test_the_next_start_goes_on_where_the_last_one_ended(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.landed(ETH_1M, 8)
            await run.end()
            await asyncio.sleep(2)  # two candles close meanwhile
            run.start()
            await run.landed(ETH_1M, 6)
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


def test_what_is_stored_already_is_not_fetched_again(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(is_started=False, first_candles=100) as run:
            stored_ms = run.venue.clock.now_ms() // 60_000 * 60_000 - 20 * 60_000
            run.settings.landing_path.mkdir(parents=True)
            (run.settings.landing_path / "resume.json").write_text(f'{{"{ETH_1M}": {stored_ms}}}')
            run.start()
            rows = await run.landed(ETH_1M, 20)
            assert rows[0]["open_time_ms"] == stored_ms + 60_000
            run.assert_whole(ETH_1M)

    asyncio.run(scene())
