"""Ending a process that this benchmark has started."""

import signal
import subprocess


def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Tells it to stop, and kills it where it does not within `seconds`; whether it obeyed. Twice is once."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True
