"""Where ccxt's Binance finds another server that speaks Binance's protocol: `hindsight venue`, or a proxy."""

# ccxt 4.5 tells spot from futures by "/stream" in a connection's address (`is_spot_url`); it adds a number of its own.
SPOT_STREAMS = "/ws/stream"


def binance_urls(url: str) -> dict[str, object]:
    """The configuration of `ccxt.binance` and `ccxt.pro.binance` for the server at `url` (http://HOST:PORT).

    Every address is replaced, so that nothing goes to the real exchange by mistake, and only spot markets are loaded.
    """
    url = url.rstrip("/")
    sockets = "ws" + url.removeprefix("http") + SPOT_STREAMS
    rest = {
        "public": "api/v3",
        "private": "api/v3",
        "v1": "api/v1",
        "sapi": "sapi/v1",
        "sapiV2": "sapi/v2",
        "sapiV3": "sapi/v3",
        "sapiV4": "sapi/v4",
        "fapiPublic": "fapi/v1",
        "fapiPublicV2": "fapi/v2",
        "fapiPublicV3": "fapi/v3",
        "fapiPrivate": "fapi/v1",
        "fapiPrivateV2": "fapi/v2",
        "fapiPrivateV3": "fapi/v3",
        "fapiData": "futures/data",
        "dapiPublic": "dapi/v1",
        "dapiPrivate": "dapi/v1",
        "dapiPrivateV2": "dapi/v2",
        "dapiData": "futures/data",
        "eapiPublic": "eapi/v1",
        "eapiPrivate": "eapi/v1",
        "papi": "papi/v1",
        "papiV2": "papi/v2",
    }
    kinds = ("spot", "margin", "linear", "inverse", "stock", "option", "optionMarket", "optionPrivate", "papi")
    api = {name: f"{url}/{path}" for name, path in rest.items()}
    return {
        "urls": {"api": {**api, "ws": {**dict.fromkeys(kinds, sockets), "ws-api": dict.fromkeys(kinds[:4], sockets)}}},
        "options": {"fetchMarkets": {"types": ["spot"]}},
    }
