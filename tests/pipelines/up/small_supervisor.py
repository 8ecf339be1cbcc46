"""Supervises small programs, for the tests: `python -m tests.pipelines.up.small_supervisor NAME=SHELL-COMMAND...`."""

import sys

from pipelines.up.supervise import Part, Supervisor


def main() -> None:
    parts = []
    for word in sys.argv[1:]:
        name, _, command = word.partition("=")
        again = 0.2 if name == "now-and-then" else None
        parts.append(Part(name=name, command=lambda c=command: ["sh", "-c", c], again_seconds=again, stop_seconds=1))
    supervisor = Supervisor()
    supervisor.run(parts)
    supervisor.stop(*reversed([part.name for part in parts]))
    supervisor.say("stopped")


if __name__ == "__main__":
    main()
