"""A PostgreSQL server of the benchmark's own, in a folder of its own, as an unprivileged user."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0
DATABASE = "dagster"
NEEDED = ("initdb", "postgres", "pg_isready", "createdb")


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where the server is not installed."""
    found = [Path(each).resolve().parent for each in [shutil.which("initdb")] if each]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if all((folder / name).exists() for name in NEEDED)), None)


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, in a server with its default settings, reached over a Unix socket."""
    bin_folder = programs()
    assert bin_folder is not None, "ask programs() before"
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's name has at most 107 bytes
    owner: dict[str, str] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        user = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        shutil.chown(folder, user)
        owner = {"user": user}
    data, log = folder / "data", (folder / "log").open("wb")
    quiet = {"stdout": log, "stderr": log, "cwd": "/", **owner}
    subprocess.run([bin_folder / "initdb", "-D", data, "-U", "hindsight", "-A", "trust"], check=True, **quiet)
    settings = ("listen_addresses=", f"unix_socket_directories={folder}")
    command = [bin_folder / "postgres", "-D", data, *(word for each in settings for word in ("-c", each))]
    server = subprocess.Popen(command, start_new_session=True, **quiet)
    try:
        ready = [bin_folder / "pg_isready", "-q", "-h", folder]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(ready, check=False).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        subprocess.run([bin_folder / "createdb", "-h", folder, "-U", "hindsight", DATABASE], check=True)
        yield f"postgresql://hindsight@/{DATABASE}?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # ends what is connected, then itself
        server.wait(30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
