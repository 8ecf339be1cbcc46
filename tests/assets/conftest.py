"""A whole chain, made once: three simulated days of one stream, as a run of the job."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from hindsight.market.streams import Window
from hindsight.settings import Settings, load
from hindsight.store.warehouse import Warehouse

DAYS = Window(start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 4, tzinfo=UTC))
QUICK = {"PREDICT_EVERY": "3", "TRAIN_EVERY": "240", "SCORE_WINDOW": "60", "SYMBOLS": "ETH/USDT,BTC/USDT"}


def settle_in(folder: Path, patch: pytest.MonkeyPatch) -> Settings:
    """Settings for a quick chain that lives in `folder`, given as a user gives them: by environment."""
    patch.setenv("HINDSIGHT_HOME", str(folder))
    patch.setenv("HINDSIGHT_SOURCE", "simulated")
    for name, value in QUICK.items():
        patch.setenv(f"HINDSIGHT_{name}", value)
    return load()


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=10)


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with its databases in files, as a user has it."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture(scope="session")
def days() -> Window:
    return DAYS
