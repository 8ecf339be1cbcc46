"""Imports run one way, read off the source: pipelines → sensors → assets → resources → hindsight, and inside it too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "sensors", "assets", "resources", "hindsight")
# What each room may import of its own package; verbs stand at the top of hindsight/ and may use every room.
ROOMS = {
    "market": {"market"},
    "inference": {"market", "inference"},
    "store": {"market", "inference", "store"},
    "training": {"market", "inference", "training"},
    "exchange": {"market", "inference", "exchange"},
    "health": {"market", "store", "exchange", "health"},
}
WORDS = {"errors", "settings"}  # that every room speaks
# The command line is the front door: it starts the runs that pipelines describes, inside its commands.
FRONT_DOOR = {("hindsight/cli.py", "pipelines")}
ONLY_IN = {
    "duckdb": ("hindsight/store/", "hindsight/"),
    "torch": ("hindsight/training/", "hindsight/"),
    "ccxt": ("hindsight/exchange/",),
    "dagster": ("pipelines/", "sensors/", "assets/", "resources/"),
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; `from a.b import c` as a.b.c, for c may be a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources(), ids=name)
def test_packages_import_only_downwards(path: Path) -> None:
    above = PACKAGES[: PACKAGES.index(name(path).split("/")[0])]
    upwards = {(name(path), module.split(".")[0]) for module in imported(path)} - FRONT_DOOR
    assert not {package for _, package in upwards} & set(above)


@pytest.mark.parametrize("path", [path for path in sources() if name(path).split("/")[1] in ROOMS], ids=name)
def test_rooms_import_only_downwards(path: Path) -> None:
    room = name(path).split("/")[1]
    others = {module.split(".")[1] for module in imported(path) if module.startswith("hindsight.")}
    assert others <= ROOMS[room] | WORDS


@pytest.mark.parametrize("path", sources(), ids=name)
def test_each_heavy_library_is_met_in_one_room_only(path: Path) -> None:
    for library, places in ONLY_IN.items():
        if any(module.split(".")[0] == library for module in imported(path)):
            folder = name(path).rpartition("/")[0] + "/"
            # "hindsight/" stands for the verbs at its top, not for every room below it.
            assert folder in places or any(folder.startswith(place) for place in places if place != "hindsight/")


@pytest.mark.parametrize(
    "path", [path for path in sources() if "dagster" in {each.split(".")[0] for each in imported(path)}], ids=name
)
def test_files_that_dagster_reads_keep_their_annotations(path: Path) -> None:
    # Dagster resolves annotations as it decorates: postponed ones fail when the code location loads.
    assert "__future__.annotations" not in imported(path)


@pytest.mark.parametrize("path", [ROOT / package / "__init__.py" for package in PACKAGES], ids=name)
def test_packages_export_nothing(path: Path) -> None:
    assert not {module for module in imported(path) if module.split(".")[0] in PACKAGES}
