"""`hindsight venue`: a venue in a process of its own, until it is told to stop."""

import asyncio
import json
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hindsight.errors import SettingRefused
from hindsight.exchange.venue.faults import Fault
from hindsight.exchange.venue.market import Market
from hindsight.exchange.venue.recorded_minutes import minutes_market
from hindsight.exchange.venue.server import serve
from hindsight.exchange.venue.session_files import SessionFiles
from hindsight.exchange.venue.session_market import session_market
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.streams import to_ms
from hindsight.settings import Settings


def run_venue(
    settings: Settings, *, port: int, speed: float, start: str, recording: str, faults: Sequence[str]
) -> None:
    """Serves until SIGINT or SIGTERM. Raises SettingRefused for a start, recording or fault that is none."""
    market = _market(settings, recording)
    told = [_fault(text) for text in faults]
    try:
        asyncio.run(_serve(market, port, speed, _start_ms(start), told))
    except OSError as error:
        raise SettingRefused(f"--port {port}: {error.strerror}. Choose another port, or 0 for any free one") from None


async def _serve(market: Market, port: int, speed: float, start_ms: int | None, faults: list[Fault]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serve(market, port=port, speed=speed, start_ms=start_ms, faults=faults) as venue:
        print(f"venue at {venue.url}", flush=True)
        await stopped.wait()


def _market(settings: Settings, recording: str) -> Market:
    """The market of the settings: recorded messages or 1m candles where a folder is named, else the simulated one."""
    if not recording:
        seed, phi, signal = settings.simulated_seed, settings.simulated_phi, settings.simulated_signal
        return simulated_market(settings.symbols, seed, phi, signal)
    folder = Path(recording).expanduser()
    if any(SessionFiles(folder, symbol.replace("/", "")).exists for symbol in settings.symbols):
        return session_market(folder, settings.symbols)
    return minutes_market(folder, settings.archive_venue, settings.symbols)


def _fault(text: str) -> Fault:
    try:
        return Fault.read(json.loads(text))
    except ValueError:
        raise SettingRefused(f'--fault {text!r} is not JSON like {{"fault": "drop", "count": 3}}') from None


def _start_ms(text: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingRefused(f"--start {text!r} is not a time like 2024-03-01 or 2024-03-01T12:00") from None
    return to_ms(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)
