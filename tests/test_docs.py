"""The docs' examples run, and the changes that they describe are made to a copy of the project and used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

LEARN = """
from datetime import datetime, timedelta, UTC
from hindsight.exchange.sources import open_source
from hindsight.learn import learn
from hindsight.market.streams import Window
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.settings import load
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse

settings = load()
stream, start = settings.streams[0], datetime(2024, 1, 1, tzinfo=UTC)
window = Window(start=start, end=start + timedelta(hours=HOURS))
warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=10)
record_candles(warehouse, open_source(settings), stream, window, window.end)
record_indicators(warehouse, stream, window)
record_pivots(warehouse, stream, window.end, max_gap=settings.max_gap)
report = learn(settings, stream, settings.models[0], window.end)
print(report.predicted, report.steps)
"""


def _blocks(page: str, language: str) -> list[str]:
    return [block for found, block in FENCE.findall((DOCS / page).read_text()) if found == language]


def _apply(diff: str, root: Path) -> None:
    """Makes the change that a page shows. Every line of it must still be there, and only once."""
    heading, *lines = diff.splitlines(keepends=True)
    name = heading.removeprefix("--- ").strip()
    # A line that a page shows may end in a comment that it leaves out: of the old text only the beginning is compared.
    old = r".*\n".join(re.escape(line[1:].rstrip("\n")) for line in lines if line[0] in " -")
    text = (root / name).read_text()
    places = list(re.finditer(rf"(?m)^{old}", text))
    assert len(places) == 1, f"{name} has {len(places)} times what the page changes:\n{diff}"
    at, new = places[0].start(), []
    rest = iter(text[at:].splitlines(keepends=True))
    for line in lines:
        if line[0] == "+":
            new.append(line[1:])
        else:
            there = next(rest)
            shown = line[1:].rstrip("\n")
            new += [there] if line[0] == " " else []
            assert there.startswith(shown)
    (root / name).write_text(text[:at] + "".join(new) + "".join(rest))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the domain, to be changed."""
    shutil.copytree(ROOT / "hindsight", tmp_path / "hindsight", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _run(root: Path, program: str, **settings: str) -> str:
    """What `program` prints, run with the domain in `root`. Its warnings are errors, as in the tests."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HINDSIGHT_")}
    environment = plain | {"PYTHONPATH": str(root), "HINDSIGHT_HOME": str(root / "home")}
    environment |= {f"HINDSIGHT_{name.upper()}": value for name, value in settings.items()}
    (root / "program.py").write_text(f"import hindsight\nassert {str(root)!r} in hindsight.__file__\n{program}")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "program.py"], cwd=root, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("page", ["adding-a-venue.md"])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(page, "python")
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, example {number + 1}", "exec"), {"__name__": "example"})


def test_an_indicator_added_as_the_page_says_reaches_tables_and_models_also_of_a_warehouse_that_exists(
    copy: Path,
) -> None:
    _run(copy, LEARN.replace("HOURS", "11"), models="transformer")
    for diff in _blocks("adding-an-indicator.md", "diff"):
        _apply(diff, copy)
    ask = """
with warehouse.reading() as con:
    found = select(con, "select count(*) - count(ultimate_28), min(ultimate_28), max(ultimate_28) from indicators")
    print(*found.row(0), select(con, "select count(distinct schema_hash) from training_steps").item())
"""
    learned, stored = _run(copy, LEARN.replace("HOURS", "12") + ask, models="transformer").splitlines()
    cold, lowest, highest, lineages = stored.split()
    assert int(cold) == 28  # candles until it is warm
    assert 0 <= float(lowest) < float(highest) <= 100
    assert int(learned.split()[0]) > 0
    assert int(lineages) == 2


def test_a_model_of_another_package_predicts_and_learns(copy: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name, language in (("linear.py", "python"), ("pyproject.toml", "toml")):
        (block,) = _blocks("adding-a-model.md", language)
        (package / name).write_text(block)
    install = ["pip", "install", "-qq", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(copy), "."]
    subprocess.run([sys.executable, "-m", *install], cwd=package, check=True)
    predicted, steps = _run(copy, LEARN.replace("HOURS", "14"), models="linear").split()
    assert int(predicted) > 100
    assert int(steps) > 10


def test_every_change_that_a_page_shows_is_made_by_a_test() -> None:
    tested = {"adding-an-indicator.md"}
    assert {page.name for page in DOCS.glob("*.md") if _blocks(page.name, "diff")} == tested
    examples = {"adding-a-venue.md", "adding-a-model.md"}
    assert {page.name for page in DOCS.glob("*.md") if _blocks(page.name, "python")} == examples
