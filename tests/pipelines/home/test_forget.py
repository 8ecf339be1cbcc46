"""Old runs are forgotten, except those that a person or the UI still needs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import SENSOR_NAME_TAG

from hindsight.settings import load
from pipelines.home.forget import FAILED_KEPT, forget
from pipelines.home.instance import open_instance

BY_SENSOR = {SENSOR_NAME_TAG: "candle_closed"}


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["january", "february"]))
def monthly() -> None:
    """Made a month at a time."""


@dg.op
def nothing() -> None:
    """Ends well."""


@dg.op
def bad() -> None:
    raise ValueError("as it was told to")


@dg.job
def idle() -> None:
    nothing()


@dg.job
def broken() -> None:
    bad()


def test_the_oldest_runs_of_sensors_go_and_what_anybody_needs_stays(home: Path) -> None:
    with open_instance(load()) as instance:

        def run(job: dg.JobDefinition, tags: dict[str, str]) -> str:
            return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).run_id

        def make(month: str) -> str:
            return dg.materialize([monthly], instance=instance, partition_key=month, tags=BY_SENSOR).run_id

        by_hand, failed = run(idle, {}), run(broken, BY_SENSOR)
        superseded, newest_of_january = make("january"), make("january")
        old = [run(idle, BY_SENSOR) for _ in range(3)]
        newest_of_february = make("february")
        new = [run(idle, BY_SENSOR) for _ in range(2)]

        assert forget(instance, datetime.now(UTC), kept=3) == 4
        left = {each.run_id for each in instance.get_runs()}
        assert left == {by_hand, failed, newest_of_january, newest_of_february, *new}
        assert not left & {superseded, *old}
        assert instance.get_materialized_partitions(monthly.key) == {"january", "february"}
        assert forget(instance, datetime.now(UTC), kept=3) == 0


def test_what_failed_goes_after_a_month_or_when_too_much_has_failed_since(home: Path) -> None:
    with open_instance(load()) as instance:
        by_hand, *failed = [
            broken.execute_in_process(instance=instance, tags=tags, raise_on_error=False).run_id
            for tags in ({}, BY_SENSOR, BY_SENSOR, BY_SENSOR)
        ]
        canceled = instance.create_run_for_job(idle, tags=BY_SENSOR)
        instance.report_run_canceled(canceled)
        now = datetime.now(UTC)

        assert forget(instance, now + FAILED_KEPT - timedelta(days=1)) == 0
        assert forget(instance, now, kept=1) == 2
        assert {each.run_id for each in instance.get_runs()} == {by_hand, failed[-1], canceled.run_id}
        assert forget(instance, now + FAILED_KEPT + timedelta(days=1)) == 1
        assert {each.run_id for each in instance.get_runs()} == {by_hand, canceled.run_id}
        assert forget(instance, now, kept=0) == 1
        assert {each.run_id for each in instance.get_runs()} == {by_hand}
