"""Work side by side: what ends it, and what is only told."""

import asyncio
import gc
import warnings

import pytest

from hindsight.errors import VenueUnavailable
from hindsight.exchange.feed.beside import Beside


async def fails(error: Exception) -> None:
    raise error


def test_quiet_work_that_fails_is_told_and_stops_nothing(caplog: pytest.LogCaptureFixture):
    async def run() -> Beside:
        beside = Beside(asyncio.Event())
        beside.start_quietly(fails(VenueUnavailable("busy")))
        await asyncio.sleep(0.01)
        return beside

    beside = asyncio.run(run())
    assert (beside.failure, beside.stop.is_set()) == (None, False)
    assert "busy" in caplog.text


@pytest.mark.parametrize(("quiet", "error"), [(True, KeyError("a")), (False, VenueUnavailable("gone"))])
def test_an_error_that_nobody_foresaw_ends_everything(quiet: bool, error: Exception):
    async def run() -> Beside:
        beside = Beside(asyncio.Event())
        (beside.start_quietly if quiet else beside.start)(fails(error))
        await asyncio.wait_for(beside.stop.wait(), 5)
        return beside

    assert asyncio.run(run()).failure is error


def test_quiet_work_may_be_ended_before_it_has_begun():
    async def run() -> None:
        beside = Beside(asyncio.Event())
        beside.start_quietly(fails(KeyError("never reached")))
        task = asyncio.current_task()
        assert task is not None
        await beside.cancel(task)
        assert beside.failure is None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(run())
        gc.collect()
