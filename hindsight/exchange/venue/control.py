"""What a running venue is told, and what it tells of itself: POST /control/faults, GET /control/state."""

import json

from aiohttp import web

from hindsight.errors import SettingRefused
from hindsight.exchange.venue.faults import Armed, Fault
from hindsight.exchange.venue.venue import VENUE


async def arm(request: web.Request) -> web.Response:
    """Arms the fault or the list of faults in the body; answers with their numbers."""
    try:
        told = json.loads(await request.text())
        faults = [Fault.read(each) for each in (told if isinstance(told, list) else [told])]
    except (ValueError, SettingRefused) as error:
        return web.json_response({"error": str(error)}, status=400)
    armed = [request.app[VENUE].faults.arm(fault) for fault in faults]
    return web.json_response({"armed": [each.number for each in armed]})


async def show_faults(request: web.Request) -> web.Response:
    faults = request.app[VENUE].faults
    return web.json_response([_shown(armed) for armed in (*faults.spent, *faults.armed)])


async def disarm(request: web.Request) -> web.Response:
    """Takes all faults away, or the one of ?number=."""
    number = request.query.get("number")
    request.app[VENUE].faults.remove(None if number is None else int(number))
    return web.json_response({})


async def state(request: web.Request) -> web.Response:
    venue = request.app[VENUE]
    faults = venue.faults
    return web.json_response(
        {
            "clock": {
                "now_ms": venue.clock.now_ms(),
                "start_ms": venue.clock.start_ms,
                "speed": venue.clock.speed,
                "skew_ms": faults.skew_ms,
            },
            "connections": [
                {
                    "number": each.number,
                    "opened_ms": each.opened_ms,
                    "streams": list(each.streams),
                    "sent": each.sent,
                    "waiting": each.waiting,
                    "is_half_open": each.is_half_open,
                }
                for each in venue.connections.values()
            ],
            "messages": venue.broadcast.sent,
            "requests": venue.requests,
            "weight": {"used": venue.weights.used, "limit": venue.weights.limit},
            "faults": [_shown(armed) for armed in (*faults.spent, *faults.armed)],
            "corrections": [
                {"stream": each.stream, "open_ms": each.open_ms, "known_ms": each.known_ms, **each.values}
                for each in faults.corrections
            ],
        }
    )


def _shown(armed: Armed) -> dict[str, object]:
    return {"number": armed.number, "fired": armed.fired, "since_ms": armed.since_ms, **armed.fault.shown()}


def routes() -> list[web.RouteDef]:
    return [
        web.post("/control/faults", arm),
        web.get("/control/faults", show_faults),
        web.delete("/control/faults", disarm),
        web.get("/control/state", state),
    ]
