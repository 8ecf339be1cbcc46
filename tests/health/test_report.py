"""The health of real homes: one that was never live, one that keeps up, and one for each thing that goes wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from hindsight.exchange.landing import Landing
from hindsight.health.report import Health, health
from hindsight.live_printing import print_live
from hindsight.market.streams import to_ms
from hindsight.settings import Settings, load
from hindsight.status import status
from hindsight.store.book_tables import write_order_book
from hindsight.store.timings import note
from hindsight.store.warehouse import Warehouse

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="session")
def end(learned_home: Settings, table: Callable):
    """The newest close."""
    return table(learned_home, "candles", "open_time")["open_time"].max() + learned_home.streams[0].step


@pytest.fixture
def live(learned_home: Settings, copy_home: Callable[..., Settings], beat: Callable[..., None], end) -> Settings:
    """A home that has kept up with the market until its newest close: its feed has just said so."""
    settings = copy_home(learned_home)
    stream, model = settings.streams[0], settings.models[0]
    amounts = [1000.0] * 40
    row = {"venue": stream.venue, "symbol": "ETH/USDT", "second": end - SECOND, "price": 100.5, "bucket_size": 1.0}
    row |= {"anchor": 100.0, "spread": 0.01, "amounts": amounts, "imbalance": 0.0, "snapshots": 10, "age_ms": 50}
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        for name, stage, seconds in (("", "stored", 0.3), (model, "predicted", 0.7), (model, "trained", 1.0)):
            for back in range(21):
                close = end - back * stream.step
                note(con, stream, name, stage, [close], close + (seconds + 0.01 * back) * SECOND)
        write_order_book(con, pl.DataFrame([row | {"venues": [stream.venue]}], infer_schema_length=None))
    beat(settings, end + SECOND)
    return settings


def verdicts(found: Health) -> dict[str, str]:
    return {each.name: each.verdict for each in found.findings if each.kind not in ("feed", "connection")}


def calling(found: Health) -> list[str]:
    return [each.name for each in found.findings if each.needs_a_person]


def test_a_home_that_was_never_live_is_off_and_calls_nobody(learned_home: Settings, end):
    found = health(learned_home, end)
    assert not found.was_ever_live
    assert list(found.findings) == []
    assert not status(learned_home).live.was_ever_live


def test_asking_after_a_home_that_was_never_live_leaves_nothing_behind(tmp_path: Path):
    health(load(home=tmp_path / "home"), datetime(2024, 3, 1, tzinfo=UTC))
    assert not (tmp_path / "home").exists()


def test_a_home_that_keeps_up_is_well(live: Settings, end):
    found = health(live, end + 2 * SECOND)
    assert {each.verdict for each in found.findings if each.kind != "skill"} == {"ok"}
    assert calling(found) == []
    (candles,), (predictions,), (learning,) = (
        found.of(kind) for kind in ("candles", "inference_references", "checkpoints")
    )
    assert candles.figures["stored_newest"] == pytest.approx(0.3)
    assert candles.figures["stored_p95"] == pytest.approx(0.49)
    assert predictions.figures["predicted_newest"] == pytest.approx(0.7)
    assert learning.figures["trained_newest"] == pytest.approx(1.0)
    assert learning.figures["candles_since_checkpoint"] is not None


def test_a_learner_that_waits_for_rare_predictions_calls_nobody(live: Settings, end):
    """Between them replay runs out of references that it may use again."""
    with Warehouse(path=live.warehouse_path, lock_timeout_seconds=5).writing() as con:
        con.execute("delete from training_steps where event_time > $since", {"since": end - 19 * live.streams[0].step})
    often = live.model_copy(update={"train_every": 1, "predict_every": 1})
    assert calling(health(often, end + 2 * SECOND)) == [f"learning of {live.streams[0]} {live.models[0]}"]
    rarely = often.model_copy(update={"predict_every": 30})
    assert calling(health(rarely, end + 2 * SECOND)) == []


def test_a_dead_feed_is_one_call_however_many_things_follow_from_it(live: Settings, end):
    found = health(live, end + 600 * SECOND)
    assert calling(found) == ["the feed"]
    assert {finding.verdict for finding in found.findings if finding.kind not in ("home", "skill")} == {"dead"}


def test_a_gap_at_the_venue_differs_from_a_dead_feed(live: Settings, beat: Callable[..., None], end):
    beat(live, end + 90 * SECOND)
    found = health(live, end + 90 * SECOND)
    assert calling(found) == []
    (candles,) = found.of("candles")
    assert candles.verdict == "late"
    assert "gap at the venue" in candles.sentence


def test_candles_that_wait_in_the_landing_call_for_a_look_at_the_runs(live: Settings, beat: Callable[..., None], end):
    row = {"stream": str(live.streams[0]), "open_time_ms": to_ms(end), "known_ms": None, "closed_by": "flag"}
    row |= {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0}
    landed = to_ms(end + 60 * SECOND)
    Landing(live.landing_path).write("candles", [row], landed, landed)
    beat(live, end + 75 * SECOND)
    found = health(live, end + 75 * SECOND)
    assert calling(found) == [f"candles of {live.streams[0]}"]
    assert "nobody takes up" in found.of("candles")[0].sentence


def test_a_lost_connection_calls_for_itself_alone(live: Settings, beat: Callable[..., None], end):
    name = f"{live.streams[0]} candles"
    beat(live, end + 300 * SECOND, states={name: "down"}, lasting=250)
    found = health(live, end + 300 * SECOND)
    assert calling(found) == [f"connection {name}"]
    assert name in found.of("candles")[0].sentence
    assert (
        found.of("candles")[0].name in found.of("order_book")[0].sentence
    )  # the feed hears the book, which waits for the candles


def test_segments_set_aside_are_told_of_until_a_person_has_seen_to_them(live: Settings, end):
    refused = live.landing_path / "refused"
    refused.mkdir(parents=True)
    (refused / "1-candles.jsonl").write_text("torn")
    assert calling(health(live, end + SECOND)) == ["refused segments"]


def test_a_warehouse_that_a_foreign_program_holds_is_a_finding(live: Settings, end):
    holds = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, str(live.warehouse_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as foreign:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == b"held\n"
        found = health(live, end + SECOND)
        foreign.communicate()
    assert found.tables is None
    assert calling(found) == ["warehouse"]
    assert "close that program" in found.of("home")[-1].sentence
    assert calling(health(live, end + SECOND)) == []


def test_markets_without_recorded_books_have_no_finding_about_them(live: Settings, end):
    found = health(live.model_copy(update={"books": False}), end + SECOND)
    assert found.of("order_book") == []
    assert calling(found) == []


def test_books_of_several_venues_are_looked_for_under_any_of_their_names(live: Settings, end):
    """Also while the feed has not said yet how any of them is."""
    several = live.model_copy(update={"book_venues": ("kraken", "binance"), "symbols": ("ETH/USDT", "BTC/USDT")})
    said = json.loads(several.heartbeat_path.read_text())
    said["parts"] = {name: part for name, part in said["parts"].items() if not name.endswith("order_book")}
    several.heartbeat_path.write_text(json.dumps(said))
    assert health(several, end + 2 * SECOND).of("order_book") != []


def test_status_prints_every_stream_every_part_and_whom_it_needs_in_eighty_columns(
    live: Settings, beat: Callable[..., None], end
):
    refused = {"not json": 2, "negative size": 1}
    beat(live, end + SECOND, states={"ETH/USDT trades": "down"}, lasting=90, refused=refused, lost={"order_book": 7})
    console = Console(width=80, record=True, file=None, force_terminal=False)
    with console.capture() as said:
        print_live(health(live, end + SECOND), console)
    printed = said.get()
    assert "Live (seconds after the close: p50 / p95)" in printed
    assert "0.40 / 0.49" in printed  # stored
    assert "0.80 / 0.89" in printed  # predicted
    assert "Feed: ok, heartbeat 0.0 s old, 7 rows lost" in printed
    assert "refused of ETH/USDT trades: 2 not json, 1 negative size" in printed
    for part in ("ETH/USDT 1m candles", "ETH/USDT trades", "ETH/USDT order book"):
        assert part in printed
    assert "dead connection ETH/USDT trades: Not connected for 90 s" in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_home_that_was_never_live_prints_nothing_of_it(learned_home: Settings, end):
    console = Console(width=80)
    with console.capture() as said:
        print_live(health(learned_home, end), console)
    assert said.get() == ""
