"""`hindsight feed` as a process: stopped, killed, put to sleep, and with a full disk, it leaves what the market was."""

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO, Any

ETH_1M, ETH_1S = "simulated ETH/USDT 1m", "simulated ETH/USDT 1s"
CANDLES = f"{ETH_1M} candles"


@contextmanager
def feed_process(run: Any, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, on the home and venue of `run`; killed at the end if it still runs."""
    named = run.settings.model_dump(exclude_unset=True)
    told = {
        f"HINDSIGHT_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in named.items()
    }
    # Through a pipe, so that a limit on the size of files leaves what it says alone.
    command = [sys.executable, "-m", "hindsight", "feed"]
    with subprocess.Popen(command, env={**os.environ, **told}, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        keeping = threading.Thread(target=_keep, args=(process.stderr, log))
        keeping.start()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            keeping.join()


def _keep(lines: IO[bytes], log: Path) -> None:
    with log.open("ab") as kept:
        for line in lines:
            kept.write(line)
            kept.flush()


def test_a_feed_that_is_told_to_stop_lands_what_it_has_and_ends_well(live: Callable[..., Any], tmp_path: Path) -> None:
    async def scene() -> None:
        async with live(is_started=False) as run:
            with feed_process(run, tmp_path / "log") as process:
                await run.landed(ETH_1M, 9)
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 30) == 0
            run.assert_whole(ETH_1M)
            assert run.beat()["pid"] == process.pid

    asyncio.run(scene())


def test_two_feeds_do_not_write_to_one_folder(live: Callable[..., Any], tmp_path: Path) -> None:
    async def scene() -> None:
        async with live(is_started=False) as run:
            with feed_process(run, tmp_path / "log") as first:
                await run.landed(ETH_1M, 2)
                with feed_process(run, tmp_path / "second") as second:
                    assert await asyncio.to_thread(second.wait, 30) == 1
                assert f"process {first.pid}" in (tmp_path / "second").read_text()
                await run.landed(ETH_1M, 2)

    asyncio.run(scene())


def test_a_feed_killed_at_any_moment_loses_nothing_that_rest_gives_back(
    live: Callable[..., Any], tmp_path: Path
) -> None:
    chance = Random(3)

    async def scene() -> None:
        settings = {"timeframes": ("1s", "1m"), "symbols": ("ETH/USDT", "BTC/USDT"), "speed": 30.0}
        async with live(is_started=False, **settings) as run:
            for _ in range(5):
                with feed_process(run, tmp_path / "log") as process:
                    await run.landed(ETH_1S, 3)
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    process.kill()
            with feed_process(run, tmp_path / "log") as process:
                await run.landed(ETH_1S, 30)
                await run.until(lambda: len([row for row in run.rows("trades") if row["symbol"] == "ETH/USDT"]) > 200)
                process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(process.wait, 30)
            for symbol in run.settings.symbols:
                for timeframe in run.settings.timeframes:
                    run.assert_whole(f"simulated {symbol} {timeframe}")
            ids = [row["trade_id"] for row in run.rows("trades") if row["symbol"] == "ETH/USDT"]
            assert sorted(set(ids)) == list(range(min(ids), max(ids) + 1))

    asyncio.run(scene())


def test_a_segment_cut_in_half_is_left_alone_by_the_next_feed(live: Callable[..., Any], tmp_path: Path) -> None:
    async def scene() -> None:
        async with live(is_started=False) as run:
            with feed_process(run, tmp_path / "log") as process:
                await run.landed(ETH_1M, 9)
                process.kill()
            run.rows("candles")
            *_, newest = sorted(run.landing.archived.glob("*/*-candles.jsonl"))
            cut = run.settings.landing_path / newest.name
            cut.write_bytes(newest.read_bytes()[:-20])
            newest.unlink()
            torn = run.settings.landing_path / f".{newest.name}.new"
            torn.write_bytes(b"{")
            lost = [
                row for row in run.seen["candles"] if row["open_time_ms"] >= run.seen["candles"][-1]["open_time_ms"]
            ]
            with feed_process(run, tmp_path / "log"):
                await run.until(lambda: len(run.landing.segments()) > 3)
                run.landing.refuse(cut, "for the test")
                run.seen["candles"] = run.seen["candles"][: -len(lost)]  # what only the cut segment held
                await run.landed(ETH_1M, 5)
                rows = {row["open_time_ms"]: row for row in run.candles(ETH_1M)}
            assert lost[0]["open_time_ms"] in rows  # REST gave it back
            assert not torn.exists()

    asyncio.run(scene())


def test_a_machine_that_slept_for_ten_minutes_fetches_what_it_missed(live: Callable[..., Any], tmp_path: Path) -> None:
    async def scene() -> None:
        async with live(is_started=False, speed=60.0, timeframes=("1s", "1m")) as run:
            with feed_process(run, tmp_path / "log") as process:
                await run.landed(ETH_1M, 8)
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(11)  # more than ten minutes, by the venue's clock
                process.send_signal(signal.SIGCONT)
                await run.landed(ETH_1M, 12)
                await run.until(lambda: run.part(CANDLES)["state"] == "connected")
                await run.landed(ETH_1S, 20)
                process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(process.wait, 30)
            run.assert_whole(ETH_1M)
            run.assert_whole(ETH_1S)
            assert "asleep for" in (tmp_path / "log").read_text()
            assert run.part(CANDLES)["reconnects"] >= 1

    asyncio.run(scene())


def test_a_full_disk_loses_nothing_and_is_shouted_about(live: Callable[..., Any], tmp_path: Path) -> None:
    async def scene() -> None:
        async with live(is_started=False) as run:
            with feed_process(run, tmp_path / "log") as process:
                await run.landed(ETH_1M, 9)
                limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10, limits[1]))
                before = len(await settled(run))
                await asyncio.sleep(3)  # ten candles
                assert len(run.candles(ETH_1M)) == before
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
                rows = await run.landed(ETH_1M, 12)
                assert {row["closed_by"] for row in rows[before : before + 5]} == {"flag"}  # kept, not fetched again
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 30) == 0
            run.assert_whole(ETH_1M)
            names = [path.name for path in run.settings.landing_path.iterdir()]
            assert not [name for name in names if name.startswith(".")]
            log = (tmp_path / "log").read_text()
            assert "ERROR" in log
            assert "kept in memory" in log
            assert "can be written again" in log

    asyncio.run(scene())


async def settled(run: Any) -> list[Any]:
    """What has landed, once nothing was added for a moment."""
    since, rows = time.monotonic(), run.candles(ETH_1M)
    while time.monotonic() - since < 0.7:
        await asyncio.sleep(0.05)
        if len(found := run.candles(ETH_1M)) > len(rows):
            since, rows = time.monotonic(), found
    return rows


def test_asyncio_is_told_to_keep_quiet_about_what_ccxt_leaves_behind() -> None:
    from hindsight.exchange.feed.command import _is_news

    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "Future exception was never retrieved", None, None)
    assert not _is_news(record)


def test_a_feed_waits_for_a_venue_that_is_not_there_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    told = {"HINDSIGHT_HOME": str(tmp_path), "HINDSIGHT_SOURCE": "simulated"}
    told["HINDSIGHT_VENUE_URL"] = "http://127.0.0.1:9"  # the discard port: nobody is there
    command = [sys.executable, "-m", "hindsight", "feed"]
    with subprocess.Popen(command, env={**os.environ, **told}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "did not answer" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert (tmp_path / "feed.json").exists()


def test_a_feed_without_a_live_market_says_what_to_set(tmp_path: Path) -> None:
    for source, cure in (
        ("simulated", "venue_url"),
        (f"archive:{tmp_path}", "ccxt:VENUE"),
        ("ccxt:nowhere", "binance"),
    ):
        told = {"HINDSIGHT_HOME": str(tmp_path), "HINDSIGHT_SOURCE": source}
        command = [sys.executable, "-m", "hindsight", "feed"]
        ended = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 1
        assert "SettingRefused" in ended.stderr
        assert cure in ended.stderr
        assert "Traceback" not in ended.stderr
