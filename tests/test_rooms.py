"""Imports run one way, and each heavy library has one room (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("market", "inference", "store", "training", "exchange")
MAY_IMPORT = {
    "market": {"market"},
    "inference": {"market", "inference"},
    "store": {"market", "inference", "store"},
    "training": {"market", "inference", "training"},
    "exchange": {"market", "exchange"},
}
PLAIN = {"errors", "settings"}  # open to every room
KEPT_IN = {"duckdb": "store", "torch": "training", "ccxt": "exchange", "safetensors": "training", "sklearn": "training"}
LAYERS = ("pipelines", "sensors", "assets", "resources", "hindsight")  # each may import those after it


def _imports(file: Path, *, also_late: bool = True) -> set[str]:
    """The modules that a file imports, by their dotted names; without `also_late` only those imported with it."""
    tree = ast.parse(file.read_text())
    found = set()
    for node in ast.walk(tree) if also_late else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_stands_on(room: str) -> None:
    beyond = {
        f"{file.name}: {name}"
        for file in _files(f"hindsight/{room}")
        for name in _imports(file)
        if name.startswith("hindsight.") and name.split(".")[1] not in MAY_IMPORT[room] | PLAIN
    }
    assert beyond == set()


@pytest.mark.parametrize(("library", "home"), KEPT_IN.items())
def test_a_heavy_library_has_one_room(library: str, home: str) -> None:
    elsewhere = {
        f"{room}/{file.name}"
        for room in ROOMS
        if room != home
        for file in _files(f"hindsight/{room}")
        if any(name.split(".")[0] == library for name in _imports(file))
    }
    assert elsewhere == set()


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_downwards(layer: str) -> None:
    above = set(LAYERS[: LAYERS.index(layer)])
    # The command line is the front door of the whole, and opens the rest only inside a command.
    files = [(file, file.name != "cli.py") for file in _files(layer)]
    upwards = {
        f"{file.relative_to(ROOT)}: {name}"
        for file, also_late in files
        for name in _imports(file, also_late=also_late)
        if name.split(".")[0] in above
    }
    assert upwards == set()


def test_the_domain_knows_no_dagster() -> None:
    knowing = {
        str(file.relative_to(ROOT))
        for file in _files("hindsight")
        if any(name.split(".")[0].startswith("dagster") for name in _imports(file))
    }
    assert knowing == set()


@pytest.mark.parametrize("layer", ["pipelines", "sensors", "assets", "resources"])
def test_loading_the_definitions_waits_for_neither_torch_nor_ccxt(layer: str) -> None:
    slow = {"hindsight.learn", "hindsight.recall", "hindsight.remake", "hindsight.training", "torch", "ccxt"}
    early = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in _files(layer)
        for name in _imports(file, also_late=False)
        if any(name == module or name.startswith(f"{module}.") for module in slow)
    }
    assert early == set()
