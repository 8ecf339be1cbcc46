"""The Dagster instance below HINDSIGHT_HOME: where runs, materialisations and logs are kept."""

import hashlib
import logging
import os
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import OperationalError

from hindsight.errors import WaitAndRetry
from hindsight.settings import Settings, make_home
from pipelines.runs.run_process import close_dead

logger = logging.getLogger(__name__)
CHECKOUT = Path(__file__).resolve().parents[2]
WORKSPACE = CHECKOUT / "workspace.yaml"
SEAL = "# As written by hindsight, "  # opens the last line: the digest of those above, so that an edit shows
WARM, STOCK = ("pipelines.runs.launcher", "WarmRunLauncher"), ("dagster", "DefaultRunLauncher")


def prepare(settings: Settings) -> Path:
    """The folder of the instance, made where missing, and named to Dagster and to every process started later."""
    make_home(settings)
    home = settings.home.resolve()
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["HINDSIGHT_HOME"], os.environ["DAGSTER_HOME"] = str(home), str(folder)
    if settings.postgres_url:
        os.environ["HINDSIGHT_POSTGRES_URL"] = settings.postgres_url  # where the file looks for it
    _keep_current(folder / "dagster.yaml", instance_yaml(settings))
    return folder


def instance_yaml(settings: Settings) -> str:
    """The dagster.yaml of an instance under these settings, sealed."""
    storage = "dagster.postgres.yaml" if settings.postgres_url else "dagster.sqlite.yaml"
    text = "\n".join((CHECKOUT / name).read_text() for name in ("dagster.yaml", storage))
    if settings.run_launcher == "stock":
        for warm, stock in zip(WARM, STOCK, strict=True):
            text = text.replace(warm, stock)
    return f"{text}{SEAL}{_digest(text)}\n"


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance, its databases created, and free of runs whose process is gone.

    Raises HomeUnwritable, and WaitAndRetry where PostgreSQL does not answer.
    """
    prepare(settings)
    try:
        instance = dg.DagsterInstance.get()
    except OperationalError as error:
        if not settings.postgres_url:
            raise
        found = str(error.orig).strip().partition("\n")[0]  # without the statement, and the address with its password
        raise WaitAndRetry(
            f"expected a PostgreSQL server where the setting postgres_url says, found none: {found}; "
            "start it, or take the setting out for SQLite files"
        ) from error
    close_dead(instance)
    return instance


def _keep_current(path: Path, text: str) -> None:
    """Writes the file where there is none, and anew where it is as we wrote it; one that was edited stays."""
    found = path.read_text() if path.exists() else None
    if found == text:
        return
    if found is not None and not _is_ours(found):
        logger.warning("%s was edited and stays as it is: run_launcher and postgres_url do not reach it", path)
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def _is_ours(text: str) -> bool:
    above, seal, digest = text.rpartition(SEAL)
    return bool(seal) and digest.strip() == _digest(above)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
