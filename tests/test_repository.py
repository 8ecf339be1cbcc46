"""What README, docs and the build files say is what is there: tree, settings, commands, links, pinned versions."""

import re
import shlex
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command
from typer.testing import CliRunner

from hindsight.cli import app
from hindsight.settings import Settings, as_toml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Came with torch for a GPU, in the versions that torch itself asks for.
OF_TORCH = re.compile(r"^(nvidia|triton|cuda)")


def test_readme_has_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200


def test_the_tree_in_the_readme_is_the_tree_that_is_there() -> None:
    folders, listed = _listed(_section("The tree"))
    closed = {folder for folder in folders if not any(path.startswith(folder) for path in listed)}
    tracked = {path for path in _tracked() if not path.endswith("__init__.py")}
    expected = {path for path in tracked if not any(path.startswith(folder) for folder in closed)}
    missing, gone = sorted(expected - listed), sorted(listed - tracked)
    empty = sorted(folder for folder in folders if not any(path.startswith(folder) for path in _tracked()))
    assert [*missing, *gone, *empty] == [], (
        f"in README.md, 'The tree': add {missing or 'nothing'}, remove {gone + empty or 'nothing'}"
    )


def test_the_settings_in_the_docs_are_the_settings() -> None:
    expected = settings_table()
    found = [line for line in (ROOT / "docs/settings.md").read_text().splitlines() if line.startswith("|")]
    missing = [line for line in expected if line not in found]
    gone = [line for line in found if line not in expected]
    assert found == expected, "in docs/settings.md: add\n{}\nremove\n{}".format("\n".join(missing), "\n".join(gone))


def settings_table() -> list[str]:
    """The lines of the table of settings, as they stand in docs/settings.md."""
    lines = ["| setting | default | unit, meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = ", ".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        lines.append(f"| `{name}` | `{default}` | {field.description} |")
    return lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text()))
    files = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in files if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - there == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    commands = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]  # a group
    for variables, words in _command_lines(page.read_text()):
        assert {name.removeprefix("HINDSIGHT_").lower() for name in variables} <= Settings.model_fields.keys()
        assert words[0] in commands, f"hindsight has no command {words[0]}"
        parameters = commands[words[0]].params
        options = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options


def test_every_command_is_in_the_readme_and_explains_itself() -> None:
    commands = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]  # a group
    for name in commands:
        # The demo is what `make demo` runs.
        assert f"hindsight {name}" in README or f"make {name}" in README, f"README.md does not name hindsight {name}"
        shown = CliRunner().invoke(app, [name, "--help"])
        assert (shown.exit_code, "Usage" in shown.output) == (0, True), shown.output


def test_printed_settings_are_a_file_that_sets_the_defaults() -> None:
    printed = CliRunner().invoke(app, ["settings"]).output
    assert printed.strip() == as_toml().strip()
    assert tomllib.loads(printed).keys() == Settings.model_fields.keys()


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    assert [page.name for page in PAGES[2:] if f"docs/{page.name}" not in README] == []


def test_make_lists_its_targets() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    shown = subprocess.run([make, "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert {"demo", "test", "up", "bench", "clean"} <= set(re.findall(r"make ([a-z-]+)", shown))


def test_the_build_server_runs_what_a_user_runs() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in text
    assert re.search(r"^make test\b", text, re.MULTILINE)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_every_dependency_is_pinned_to_one_version() -> None:
    pinned = _pinned()
    assert pinned["torch"] == "2.13.0"
    wanted, seen = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]], set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if OF_TORCH.match(name) or not _applies(requirement):
            continue
        assert name in pinned, f"constraints.txt does not pin {name}"
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                wanted += _required_by(name, extra)


def test_only_versions_stand_in_constraints() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert lines == sorted(lines, key=str.lower)


def test_the_changelog_keeps_its_form() -> None:
    # https://keepachangelog.com
    headings = re.findall(r"^##+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    version = re.compile(r"\[(Unreleased|\d+\.\d+\.\d+)\]( - (\d{4}-\d{2}-\d{2}|unreleased))?")
    assert [heading for heading in headings if heading not in kinds and not version.fullmatch(heading)] == []
    assert any(f"[{PROJECT['version']}]" in heading for heading in headings)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(r"(?<![\w.~*/}>-])/(?:" + "|".join(("home", "root", "Users", "work", "tmp", "mnt")) + r")/\w")
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in _tracked()
        for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []


def _section(title: str) -> str:
    """The text below a heading of the README, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title!r}"
    return found[1]


def _tracked() -> list[str]:
    """Every file under version control that is there, by its path from the root."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, or git is not installed: what belongs to the project is unknown")
    # The checkout may belong to another user than the one who runs the tests, as in a container.
    command = [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).exists()]


def _listed(section: str) -> tuple[set[str], set[str]]:
    """The folders and the files that a drawn tree lists. Two spaces indent; names are apart from the phrase by two."""
    folders, files, parents = set(), set(), [""]
    for line in FENCE.search(section)[2].splitlines():  # pyright: ignore[reportOptionalSubscript]
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip(), maxsplit=1)[0]
        for name in names.split(", "):
            path = parents[depth] + name
            (folders if name.endswith("/") else files).add(path)
            if name.endswith("/"):
                parents[depth + 1 :] = [path]
    return folders, files


def _command_lines(text: str) -> list[tuple[set[str], list[str]]]:
    """The variables set before `hindsight`, and the words after it, for each such line of the shell blocks."""
    found = []
    for language, block in FENCE.findall(text):
        if language != "sh":
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if "hindsight" in words:
                at = words.index("hindsight")
                found.append(({word.partition("=")[0] for word in words[:at] if "=" in word}, words[at + 1 :]))
    return found


def _pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def _required_by(name: str, extra: str) -> list[str]:
    """What a package requires here, with one of its extras; nothing where it is not installed itself."""
    found = []
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return found
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            requirement.marker = None
            found.append(str(requirement))
    return found
