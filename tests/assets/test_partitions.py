"""Which stretches of time a run covers, and that a backfill started in the UI meets its months in order."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.partitions.subset import PartitionsSubset
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from assets.partitions import (
    MARKET_MONTHS,
    SETTINGS,
    STREAM_MONTHS,
    STREAMS_OF_MARKET,
    Stretch,
    market_month,
    note_stream,
    partition_key,
    range_tags,
    run_keys,
    stream_keys,
    stretches,
)
from hindsight.market.streams import Window
from hindsight.settings import load
from pipelines.definitions import defs

FIRST, SECOND = SETTINGS.streams[:2]
NOW = datetime(2024, 6, 15, 10, 30, 20, tzinfo=UTC)


def at(month: int, day: int = 1, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2024, month, day, hour, minute, tzinfo=UTC)


def covered(tags: dict[str, str], since: datetime | None = None, until: datetime | None = None) -> list[Stretch]:
    run = dg.DagsterRun(job_name="backfill", tags=tags)
    with dg.DagsterInstance.ephemeral() as instance:
        return stretches(run, instance, since, until, NOW)


def stretch(stream, start: datetime, end: datetime) -> Stretch:
    return Stretch(stream=stream, window=Window(start=start, end=end))


def test_a_run_of_a_range_covers_its_months_in_one_stretch() -> None:
    tags = range_tags(FIRST, Window(start=at(1, 10), end=at(3, 2)))
    assert covered(tags) == [stretch(FIRST, at(1), at(4))]


def test_a_run_of_one_partition_covers_one_month() -> None:
    assert covered({"dagster/partition": f"2024-02|{FIRST}"}) == [stretch(FIRST, at(2), at(3))]


def test_a_run_over_several_streams_takes_each_by_itself() -> None:
    tags = {
        "dagster/asset_partition_range_start": f"2024-02|{FIRST}",
        "dagster/asset_partition_range_end": f"2024-03|{SECOND}",
    }
    assert sorted(map(str, covered(tags))) == sorted(
        [str(stretch(FIRST, at(2), at(4))), str(stretch(SECOND, at(2), at(4)))]
    )


def test_nothing_that_has_not_closed_is_covered() -> None:
    tags = range_tags(FIRST, Window(start=at(6), end=at(7)))
    assert covered(tags) == [stretch(FIRST, at(6), at(6, 15, 10, 30))]


def test_a_month_that_has_not_begun_is_not_covered() -> None:
    assert covered({"dagster/partition": f"2024-07|{FIRST}"}) == []


def test_since_and_until_cut_inside_a_month() -> None:
    tags = range_tags(FIRST, Window(start=at(1, 10), end=at(1, 20)))
    assert covered(tags, at(1, 10), at(1, 20)) == [stretch(FIRST, at(1, 10), at(1, 20))]


def test_a_run_without_partitions_covers_nothing() -> None:
    assert covered({}) == []


@pytest.mark.parametrize(
    ("months", "expected"),
    [
        pytest.param(["2024-02", "2024-03"], [stretch(FIRST, at(2), at(4))], id="the month before comes along"),
        pytest.param(
            ["2024-01", "2024-03"], [stretch(FIRST, at(1), at(2)), stretch(FIRST, at(3), at(4))], id="in order of time"
        ),
        pytest.param(["2024-03", "2024-04"], [stretch(FIRST, at(3), at(4))], id="a later month is left to its own run"),
    ],
)
def test_a_run_covers_the_earlier_months_of_its_backfill(months: list[str], expected: list[Stretch]) -> None:
    # Dagster cuts a backfill of two streams and two months by month and starts both runs together, in no order.
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_backfill(_backfill("both", [f"{month}|{FIRST}" for month in months]))
        run = dg.DagsterRun(job_name="backfill", tags={**_only("2024-03"), "dagster/backfill": "both"})
        assert stretches(run, instance, None, None, NOW) == expected


def test_a_backfill_that_asks_for_order_books_too_covers_the_earlier_months_of_the_streams() -> None:
    markets = MARKET_MONTHS.subset_with_partition_keys(
        [MARKET_MONTHS.get_partition_key_from_str(f"{FIRST.venue} {FIRST.symbol}|2024-01")]
    )
    with dg.DagsterInstance.ephemeral() as instance:
        months = [f"{month}|{FIRST}" for month in ("2024-02", "2024-03")]
        instance.add_backfill(_backfill("mixed", months, {dg.AssetKey("order_book"): markets}))
        run = dg.DagsterRun(job_name="backfill", tags={**_only("2024-03"), "dagster/backfill": "mixed"})
        assert stretches(run, instance, None, None, NOW) == [stretch(FIRST, at(2), at(4))]


def _only(month: str) -> dict[str, str]:
    key = f"{month}|{FIRST}"
    return {"dagster/asset_partition_range_start": key, "dagster/asset_partition_range_end": key}


def _backfill(
    name: str, keys: list[str], others: dict[dg.AssetKey, PartitionsSubset] | None = None
) -> PartitionBackfill:
    subset = STREAM_MONTHS.subset_with_partition_keys(keys)
    target = dg.AssetKey("candles")
    return PartitionBackfill(
        backfill_id=name,
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=NOW.timestamp(),
        asset_selection=[target, *(others or {})],
        asset_backfill_data=AssetBackfillData.empty(
            _graph_subset({target: subset, **(others or {})}), NOW.timestamp(), dynamic_partitions_store=None
        ),
    )


def _graph_subset(subsets: dict[dg.AssetKey, PartitionsSubset]):
    from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset  # noqa: F401
    from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset

    return AssetGraphSubset(partitions_subsets_by_asset_key=subsets)


def test_range_tags_name_every_partition_that_a_window_touches() -> None:
    tags = range_tags(SECOND, Window(start=at(1, 31), end=at(3, 1)))
    assert run_keys(tags) == [partition_key(SECOND, at(1)), partition_key(SECOND, at(2))]


def test_a_stream_sees_the_order_book_of_its_market_in_the_same_month() -> None:
    asked = STREAM_MONTHS.subset_with_partition_keys([partition_key(FIRST, at(2)), partition_key(SECOND, at(3))])
    seen = STREAMS_OF_MARKET.get_upstream_mapped_partitions_result_for_partitions(asked, STREAM_MONTHS, MARKET_MONTHS)
    assert set(seen.partitions_subset.get_partition_keys()) == {
        market_month(FIRST.venue, FIRST.symbol, at(2)),
        market_month(SECOND.venue, SECOND.symbol, at(3)),
    }


def test_streams_filled_by_other_settings_stay_partitions(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    other, own = load(symbols="SOL/USDT", timeframes="1h"), load(symbols="ETH/USDT")
    for _ in range(2):
        note_stream(own, own.streams[0])
        note_stream(other, other.streams[0])
    assert own.streams_path.read_text() == "simulated ETH/USDT 1m\nsimulated SOL/USDT 1h\n"
    assert stream_keys(load(symbols="BTC/USDT")) == [
        "simulated BTC/USDT 1m",
        "simulated ETH/USDT 1m",
        "simulated SOL/USDT 1h",
    ]


def test_a_run_that_chose_no_months_fails_and_fills_no_partition(tmp_path, monkeypatch) -> None:
    result, filled = _record(tmp_path, monkeypatch, {}, {})
    assert "choose some" in str(result.failure_data_for_node("candles"))
    assert not filled


def test_a_run_whose_scope_lies_outside_its_months_fails_and_fills_no_partition(tmp_path, monkeypatch) -> None:
    scope = {"since": "2024-01-01T15:00", "until": "2024-01-01T15:30"}
    result, filled = _record(tmp_path, monkeypatch, scope, {"dagster/partition": f"2023-05|{FIRST}"})
    told = str(result.failure_data_for_node("candles"))
    assert "expected since and until inside the months chosen" in told
    assert "found since 2024-01-01T15:00, until 2024-01-01T15:30" in told
    assert not filled


@pytest.mark.parametrize(
    ("month", "scope"),
    [
        pytest.param("2024-01", {"since": "2024-01-01T00:00:00", "until": "2024-01-01T00:00:30"}, id="no whole candle"),
        pytest.param(
            f"{datetime.now(UTC):%Y-%m}", {"until": f"{datetime.now(UTC):%Y-%m}-01T00:00:30"}, id="this month"
        ),
    ],
)
def test_a_run_in_whose_scope_no_candle_closes_covers_nothing_and_is_well(
    tmp_path, monkeypatch, month: str, scope: dict[str, str]
) -> None:
    result, _ = _record(tmp_path, monkeypatch, scope, {"dagster/partition": f"{month}|{FIRST}"})
    assert result.success


def _record(
    home: Path, patch: pytest.MonkeyPatch, scope: dict[str, str], tags: dict[str, str]
) -> tuple[dg.ExecuteInProcessResult, set[str]]:
    """A run of the job `record` in an empty home, and the partitions of `candles` that count as filled after it."""
    patch.setenv("HINDSIGHT_HOME", str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("record").execute_in_process(
            run_config={"resources": {"scope": {"config": scope}}}, tags=tags, instance=instance, raise_on_error=False
        )
        return result, instance.get_materialized_partitions(dg.AssetKey("candles"))
