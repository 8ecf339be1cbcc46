"""The processes of one home: which part of Hindsight each is, its memory and its processor time, from /proc."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# By what stands in the command line. A run is forked from the template, or started by the code server the stock way.
KINDS = {
    "benchmarks.live": "benchmark",
    "hindsight up": "up",
    "hindsight feed": "feed",
    "hindsight venue": "venue",
    "pipelines.runs.template": "template",
    "pipelines.home.daemon": "daemon",
    "pipelines.home.forget": "forget",
    "api grpc": "code",
    "api execute_run": "run",
    "multiprocessing.spawn": "run",
    "dagster_webserver": "webserver",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One process at one moment. `of_children` is the processor time of those that it has waited for."""

    pid: int
    started: int  # clock ticks after boot: with the pid, a name for good
    kind: str
    resident: int
    share: int  # of memory: what several processes share counts among them
    seconds: float
    of_children: float


def kind_of(pid: int) -> str:
    """Which part of Hindsight a process is; "other" where that cannot be told."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        session = int(_stat(pid)[3])
    except (OSError, IndexError):
        return "other"
    kind = next((kind for words_of, kind in KINDS.items() if words_of in words), "other")
    # A fork looks like the template that it came from; the template leads a session, and its runs are in it.
    return "run" if kind == "template" and session != pid else kind


def processes(home: Path) -> list[int]:
    """Ids of the processes whose HINDSIGHT_HOME is `home`, whoever their parents are by now."""
    wanted = f"HINDSIGHT_HOME={home}".encode()
    return [pid for pid in _pids() if wanted in _environment(pid)]


def of_kind(home: Path, kind: str) -> list[int]:
    """Ids of the processes of `home` that are this part of Hindsight."""
    return [pid for pid in processes(home) if kind_of(pid) == kind]


def look(home: Path) -> list[Seen]:
    """Every process of `home` as it stands."""
    found = []
    for pid in processes(home):
        try:
            fields = _stat(pid)
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        share = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
        found.append(
            Seen(
                pid=pid,
                started=int(fields[19]),
                kind=kind_of(pid),
                resident=int(fields[21]) * PAGE,
                share=share * 1024,
                seconds=(int(fields[11]) + int(fields[12])) / TICKS,
                of_children=(int(fields[13]) + int(fields[14])) / TICKS,
            )
        )
    return found


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, counted after the name, which may hold anything (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
