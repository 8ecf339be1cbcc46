"""The gate that every request passes, in this order: counted, faults, weight, and the form of refusals.

Authentication of private endpoints belongs here too, between weight and handler.
"""

import asyncio
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from hindsight.exchange.venue.faults import Fault
from hindsight.exchange.venue.market import NotListed
from hindsight.exchange.venue.spoiled import answered
from hindsight.exchange.venue.venue import VENUE
from hindsight.exchange.venue.weights import weight_of

# https://developers.binance.com/docs/binance-spot-api-docs/errors
TOO_MUCH = {429: "Too much request weight used.", 418: "Way too much request weight used; IP banned."}


class Refused(Exception):
    """A request that Binance answers with 400, a code and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    venue, path = request.app[VENUE], request.path
    if path.startswith("/control/"):
        return await handler(request)
    spoiling: list[Fault] = []
    for fault in venue.faults.on_request(path):
        if fault.fault == "slow":
            await asyncio.sleep(fault.seconds)
        elif fault.fault == "answer":
            spoiling.append(fault)
        else:
            venue.requests[f"{path} {fault.status}"] += 1
            return refusal(fault.status, fault.retry_after)
    response = await _weighed(request, handler)
    for fault in spoiling:
        if isinstance(response, web.Response) and response.text is not None:
            response.text = answered(response.text, fault)
    venue.requests[f"{path} {response.status}"] += 1
    return response


async def _weighed(request: web.Request, handler: Handler) -> web.StreamResponse:
    venue, path = request.app[VENUE], request.path
    if not path.startswith("/api/"):
        return await handler(request)
    verdict = venue.weights.charge(weight_of(path, request.query), time.monotonic())
    if verdict.status != 200:
        response = refusal(verdict.status, verdict.retry_after)
    else:
        try:
            response = await handler(request)
        except Refused as refused:
            response = web.json_response({"code": refused.code, "msg": str(refused)}, status=400)
        except NotListed as missing:
            response = web.json_response({"code": -1121, "msg": str(missing)}, status=400)
    for header in ("X-MBX-USED-WEIGHT", "X-MBX-USED-WEIGHT-1M"):
        response.headers[header] = str(venue.weights.used)
    return response


def refusal(status: int, retry_after: int | None) -> web.Response:
    """What a client gets that asks too much, or that asks while the venue is down."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status in TOO_MUCH:
        return web.json_response({"code": -1003, "msg": TOO_MUCH[status]}, status=status, headers=headers)
    # What stands before the exchange answers in HTML.
    page = f"<html><title>{status}</title></html>"
    return web.Response(status=status, text=page, content_type="text/html", headers=headers)
