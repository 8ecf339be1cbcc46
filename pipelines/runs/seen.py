"""What a long-lived process has imported, under which settings; and what of that has changed on disk since."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

INSTALLED = (sys.prefix, sys.base_prefix)  # what pip and Python put there does not change under a running process


class Seen:
    """The project's files as they were imported, and the settings as they were then."""

    def __init__(self) -> None:
        self.settings = settings_of(os.environ, os.getcwd())
        self.files: dict[str, int] = {}

    def note(self, *files: str) -> None:
        """Remembers `files` and those of all modules imported by now, where they are new."""
        imported = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        for file in {*files, *(file for file in imported if file)}:
            if file not in self.files and not file.startswith(INSTALLED):
                self.files[file] = _version(Path(file))

    def changed(self, environment: Mapping[str, str], folder: str) -> str:
        """What is not as it was, in words; empty where nothing is."""
        settings = settings_of(environment, folder)
        for name in sorted({*settings, *self.settings}, reverse=True):
            if settings.get(name) != self.settings.get(name):
                return f"{name} has changed"
        for file, version in self.files.items():
            if _version(Path(file)) != version:
                return f"{file} has changed"
        return ""


def settings_of(environment: Mapping[str, str], folder: str) -> dict[str, str | int]:
    """All that `hindsight.settings` goes by: variables, the working directory, and the versions of both files."""
    variables = {name: value for name, value in environment.items() if name.startswith("HINDSIGHT_")}
    here, home = Path(folder), Path(folder, environment.get("HINDSIGHT_HOME", ""))
    files = {"./hindsight.toml": here / "hindsight.toml", "hindsight.toml of the home": home / "hindsight.toml"}
    return {**variables, "the working directory": folder, **{name: _version(file) for name, file in files.items()}}


def _version(file: Path) -> int:
    """When a file was last written; 0 where there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
