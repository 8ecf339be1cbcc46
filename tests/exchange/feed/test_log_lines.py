"""After each fault that touches candles: a line in the log that says which stream, which window, and what happened."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

ETH_1M, KLINES = "simulated ETH/USDT 1m", "ethusdt@kline_1m"
CANDLES = f"{ETH_1M} candles"
WHERE = re.compile(rf"{CANDLES} \[\d{{4}}-\d\d-\d\d \d\d:\d\d, \d{{4}}-\d\d-\d\d \d\d:\d\d\): ")
Fault = dict[str, Any]
FAULTS: list[tuple[Fault, str]] = [
    ({"fault": "close", "only": "forming"}, "connection lost"),
    ({"fault": "half_open"}, "silent for"),
    ({"fault": "correct"}, "told anew after its close"),
    ({"fault": "gap", "candles": 1, "where": "stream"}, "1 candles filled in"),
    ({"fault": "gap", "candles": 5, "where": "stream"}, "filled in"),
    ({"fault": "gap", "candles": 2}, "2 candles are missing: the venue has none there"),
    ({"fault": "corrupt"}, "refused (no JSON"),
    ({"fault": "truncate"}, "refused (no JSON"),
    ({"fault": "field", "name": "k.c"}, "refused (a field is missing: close"),
    ({"fault": "field", "name": "k.h", "value": "high"}, "refused (no number: high"),
    ({"fault": "field", "name": "k.l", "value": "NaN"}, "refused (no number: low"),
    ({"fault": "field", "name": "k.v", "value": "-1"}, "refused (negative: negative volume"),
    ({"fault": "status", "path": "/api/v3/klines", "status": 503}, "cannot be mended"),
]


def words(fault: Fault) -> str:
    return " ".join(map(str, fault.values()))


@pytest.mark.parametrize(("fault", "told"), FAULTS, ids=[words(fault) for fault, _ in FAULTS])
def test_the_log_tells_stream_window_and_what_happened(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture, fault: Fault, told: str
) -> None:
    async def scene() -> None:
        async with live(silent_seconds=1.5) as run:
            await run.connected(CANDLES)
            await run.landed(ETH_1M, 6)
            caplog.clear()
            more = {name: value for name, value in fault.items() if name != "fault"}
            if fault["fault"] == "status":
                run.venue.faults.add("gap", stream=KLINES, candles=1, where="stream")
            else:
                more["stream"] = KLINES
            run.venue.faults.add(fault["fault"], **more)
            await run.until(lambda: [each for each in caplog.messages if WHERE.match(each) and told in each])

    caplog.set_level(logging.INFO)
    asyncio.run(scene())
    about = [each for each in caplog.records if each.levelno >= logging.WARNING and CANDLES in each.getMessage()]
    assert all(WHERE.match(each.getMessage()) for each in about)
