"""Runs a contender's work and says what it took. Executed by the contender's own Python, so it knows the standard
library alone.

    python inside.py CONTENDER.py '{"argument": …}' OUTCOME

A contender is a file with `prepare(**given)`, unmeasured, which returns the work: a function without arguments whose
result, a JSON-able dict, is checked by who asked. What it takes is measured around that one call, and the peak of
memory over the whole process.
"""

import importlib.util
import json
import resource
import sys
import time
from pathlib import Path


def main(contender: str, given: str, outcome: str) -> None:
    """Prepares, measures, writes."""
    work = _load(Path(contender)).prepare(**json.loads(given))
    written, processor, wall = _written(), _processor(), time.perf_counter()
    result = work()
    took = {
        "wall": time.perf_counter() - wall,
        "processor": _processor() - processor,
        "written_bytes": _written() - written,
        "peak_bytes": _peak(),
        "result": result,
    }
    Path(outcome).write_text(json.dumps(took))


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _processor() -> float:
    """Seconds of all threads, and of the processes that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _written() -> int:
    """Bytes handed to `write` so far: what reaches the disk beneath depends on when the kernel feels like it."""
    return int(_proc("io", "wchar:"))


def _peak() -> int:
    return int(_proc("status", "VmHWM:")) * 1024


def _proc(file: str, name: str) -> str:
    """A number of /proc/self, which Linux has."""
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
