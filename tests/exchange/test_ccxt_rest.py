"""ccxt over a real socket: the unmodified client of Binance against a small server that speaks its REST API."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.errors import SettingRefused, VenueUnavailable
from hindsight.exchange.ccxt_rest import CcxtRest
from hindsight.market.candles import CANDLES, accept
from hindsight.market.streams import Stream, Window, to_ms

ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
START = datetime(2024, 6, 25, tzinfo=UTC)
MINUTE = 60_000
# https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-endpoints#exchange-information
MARKETS = {
    "timezone": "UTC",
    "symbols": [
        {
            "symbol": "ETHUSDT",
            "status": "TRADING",
            "baseAsset": "ETH",
            "quoteAsset": "USDT",
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "permissions": ["SPOT"],
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
                {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000", "stepSize": "0.0001"},
            ],
        }
    ],
}

# https://developers.binance.com/docs/binance-spot-api-docs/errors; what stands before the venue answers 5xx in HTML
REFUSALS: dict[int, object] = {
    400: {"code": -1121, "msg": "Invalid symbol."},
    418: {"code": -1003, "msg": "Way too much request weight used; IP banned."},
    429: {"code": -1003, "msg": "Too much request weight used."},
}


class Binance(ThreadingHTTPServer):
    """Three endpoints of Binance spot on a free port: exchangeInfo, time and klines of ETHUSDT 1m since START."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.now_ms = to_ms(START) + 5000 * MINUTE  # what its clock shows
        self.missing: set[int] = set()  # minutes since START without a candle
        self.failures: list[tuple[int, dict[str, str]]] = []  # statuses and headers of the next answers to /klines
        self.asked: list[tuple[float, str, dict[str, str]]] = []  # when, path, query
        self.wrong: dict[str, list[object]] = {}  # what is answered to a path next, with the status 200
        self.stamps: dict[int, object] = {}  # of minutes since START whose candle carries another open time

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, object, dict[str, str]]:
        self.asked.append((time.monotonic(), path, query))
        if wrong := self.wrong.get(path.removeprefix("/api/v3/")):
            return 200, wrong.pop(0), {}
        if path == "/api/v3/exchangeInfo":
            return 200, MARKETS, {}
        if path == "/api/v3/time":
            return 200, {"serverTime": self.now_ms}, {}
        if self.failures:
            status, headers = self.failures.pop(0)
            return status, REFUSALS.get(status, "<html><title>Bad gateway</title></html>"), headers
        return 200, self.klines(int(query["startTime"]), int(query.get("limit", 500))), {}

    def klines(self, start_ms: int, limit: int) -> list[list[object]]:
        """The first `limit` candles that open at or after `start_ms`; the last of all is the forming one."""
        first = max(0, -((to_ms(START) - start_ms) // MINUTE))
        now = (self.now_ms - to_ms(START)) // MINUTE
        minutes = [minute for minute in range(first, now + 1) if minute not in self.missing][: min(limit, 1000)]
        rows = [_kline(minute) for minute in minutes]
        return [[self.stamps.get(minute, row[0]), *row[1:]] for minute, row in zip(minutes, rows, strict=True)]

    def paths(self) -> list[str]:
        return [path.removeprefix("/api/v3/") for _, path, _ in self.asked]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Binance)
        url = urlsplit(self.path)
        status, body, headers = self.server.answer(url.path, {k: v[0] for k, v in parse_qs(url.query).items()})
        self.send_response(status)
        text = (body if isinstance(body, str) and status != 200 else json.dumps(body)).encode()
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Keeps the test's output quiet."""


def _kline(minute: int) -> list[object]:
    close = 3000 + minute % 97 / 100
    opened = to_ms(START) + minute * MINUTE
    prices = [f"{price:.8f}" for price in (close - 0.5, close + 1.25, close - 2.5, close, 10 + minute / 8)]
    return [opened, *prices, opened + MINUTE - 1, "0", minute, "0", "0", "0"]


def _expected(minutes: range) -> pl.DataFrame:
    rows = [_kline(minute)[:6] for minute in minutes]
    times = [START + timedelta(minutes=minute) for minute in minutes]
    columns = {name: [float(str(row[i])) for row in rows] for i, name in enumerate(CANDLES.names()[1:6], start=1)}
    return pl.DataFrame(
        {
            "open_time": times,
            **columns,
            "revision": [0] * len(times),
            "recorded_at": [moment + timedelta(minutes=1) for moment in times],
        },
        schema=CANDLES,
    )


@pytest.fixture
def binance() -> Iterator[Binance]:
    with Binance() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _source(server: Binance, **arguments: object) -> CcxtRest:
    config = {
        "urls": {"api": {"public": f"http://127.0.0.1:{server.server_address[1]}/api/v3"}},
        "options": {"fetchMarkets": {"types": ["spot"]}},
        "rateLimit": 1,
    }
    waits = {"first_wait": 0.01, "longest_wait": 0.05, "jitter": 0.02}
    return CcxtRest("binance", config=config, **{**waits, **arguments})  # pyright: ignore[reportArgumentType]


def _window(minutes: int, since: datetime = START) -> Window:
    return Window(start=since, end=since + timedelta(minutes=minutes))


def _read(source: CcxtRest, window: Window, stream: Stream = ETH) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=CANDLES), *source.candles(stream, window)])


def test_more_candles_than_a_page_holds_come_complete_and_equal(binance: Binance) -> None:
    frame = _read(_source(binance), _window(2500))
    assert_frame_equal(frame, _expected(range(2500)), check_exact=True)
    assert accept(frame, ETH)[1].is_empty()
    assert binance.paths() == ["exchangeInfo", "time", "klines", "klines", "klines"]
    assert [query["limit"] for _, path, query in binance.asked if path.endswith("klines")] == ["1000", "1000", "500"]


def test_the_forming_candle_is_dropped_by_the_venues_clock(binance: Binance) -> None:
    binance.now_ms = to_ms(START) + 7 * MINUTE + 59_999  # the venue returns 8 candles, the last one forming
    source = _source(binance, local_clock=lambda: START + timedelta(days=300))  # a local clock that runs ahead
    assert_frame_equal(_read(source, _window(60)), _expected(range(7)))
    binance.now_ms += 1
    assert_frame_equal(_read(source, _window(60)), _expected(range(8)))


def test_a_grace_leaves_the_newest_close_for_later(binance: Binance) -> None:
    binance.now_ms = to_ms(START) + 8 * MINUTE + 1500
    assert len(_read(_source(binance, grace_seconds=2.0), _window(60))) == 7
    assert len(_read(_source(binance, grace_seconds=1.0), _window(60))) == 8


def test_a_venue_without_a_clock_is_judged_by_the_local_one(binance: Binance) -> None:
    source = _source(binance, local_clock=lambda: START + timedelta(minutes=3, seconds=30))
    source.exchange.has["fetchTime"] = False
    assert _read(source, _window(60))["open_time"].max() == START + timedelta(minutes=2)
    assert "time" not in binance.paths()


def test_nothing_is_given_outside_the_window(binance: Binance) -> None:
    window = Window(start=START + timedelta(seconds=30), end=START + timedelta(minutes=5, seconds=30))
    assert_frame_equal(_read(_source(binance), window), _expected(range(1, 5)))
    before_the_listing = Window(start=START - timedelta(days=3), end=START + timedelta(minutes=2))
    assert_frame_equal(_read(_source(binance), before_the_listing), _expected(range(2)))
    in_the_future = _window(10, START + timedelta(days=30))
    assert _read(_source(binance), in_the_future).is_empty()


def test_holes_are_passed_over_however_wide(binance: Binance) -> None:
    binance.missing = {5, 6, *range(100, 2300)}
    frame = _read(_source(binance), _window(2500))
    assert_frame_equal(frame, _expected(range(2500)).filter(~pl.int_range(pl.len()).is_in(list(binance.missing))))


OPENED = to_ms(START) + 1500 * MINUTE


@pytest.mark.parametrize("minute", [1500, 1999], ids=["amid a page", "at the end of a page"])
@pytest.mark.parametrize(
    ("stamp", "is_refused"),
    [
        pytest.param(OPENED * 1000, True, id="in microseconds"),
        pytest.param(OPENED * 1_000_000, True, id="in nanoseconds"),
        pytest.param(OPENED // 1000, True, id="in seconds"),
        pytest.param(None, True, id="missing"),
        pytest.param(to_ms(START) + 2900 * MINUTE, False, id="later in the window"),
        pytest.param(to_ms(START) + 4900 * MINUTE, False, id="after the window"),
    ],
)
def test_a_candle_that_is_stamped_wrongly_is_the_only_one_lost(
    binance: Binance, minute: int, stamp: object, is_refused: bool
) -> None:
    binance.stamps = {minute: stamp}
    good, refused = accept(_read(_source(binance), _window(3000)), ETH)
    assert_frame_equal(good, _expected(range(3000)).filter(pl.int_range(pl.len()) != minute))
    assert (not refused.is_empty()) == is_refused


def test_a_market_that_hardly_trades_takes_no_more_requests_than_it_has_pages(binance: Binance) -> None:
    binance.missing = {minute for minute in range(5000) if minute % 10}
    found = _read(_source(binance), _window(4990))
    assert len(found) == 499
    assert binance.paths().count("klines") <= 2


def test_a_venue_whose_answers_are_no_rows_is_read_by_ccxt_alone() -> None:
    exchange = CcxtRest("btcturk").exchange
    columns = {name: [1.0, 2.0] for name in ("t", "o", "h", "l", "c", "v")}
    assert len(exchange.parse_ohlcvs({"s": "ok", **columns})) == 2


NO_CANDLES = [{}, None, {"data": []}, [None], [{}], [[]], "soon", 7, [[OPENED // 1000, "1", "1", "1", "1", "1"]]]


@pytest.mark.parametrize("answer", NO_CANDLES, ids=str)
def test_an_answer_that_holds_no_candles_is_no_hole(binance: Binance, answer: object) -> None:
    binance.wrong["klines"] = [answer] * 2
    assert_frame_equal(_read(_source(binance), _window(1500)), _expected(range(1500)))
    binance.wrong["klines"] = [answer] * 9
    with pytest.raises(VenueUnavailable, match=r"binance ETH/USDT 1m \[2024-06-25 .* 3 times.*BadResponse"):
        _read(_source(binance, attempts=3), _window(1))


def test_an_empty_list_is_a_hole(binance: Binance) -> None:
    binance.wrong["klines"] = [[]]
    assert_frame_equal(_read(_source(binance), _window(1500)), _expected(range(1000, 1500)))


@pytest.mark.parametrize("told", [0, None, "soon", to_ms(START) * 1000], ids=str)
def test_a_time_that_is_none_is_asked_for_again(binance: Binance, told: object) -> None:
    binance.wrong["time"] = [{"serverTime": told}] * 2
    assert_frame_equal(_read(_source(binance), _window(5)), _expected(range(5)))
    assert binance.paths().count("time") == 3


@pytest.mark.parametrize("answer", [{}, None, [None]], ids=str)
def test_markets_that_cannot_be_read_are_asked_for_again(binance: Binance, answer: object) -> None:
    binance.wrong["exchangeInfo"] = [answer] * 2
    assert_frame_equal(_read(_source(binance), _window(5)), _expected(range(5)))


@pytest.mark.parametrize("status", [429, 418, 500, 503])
def test_a_venue_that_is_busy_is_asked_again(binance: Binance, status: int) -> None:
    binance.failures = [(status, {})] * 3
    assert_frame_equal(_read(_source(binance), _window(1500)), _expected(range(1500)))
    assert binance.paths().count("klines") == 3 + 2


def test_waits_between_attempts_grow_and_are_jittered(binance: Binance) -> None:
    source = _source(binance, first_wait=0.05, longest_wait=1.0, jitter=0.1)
    spread = []
    for _ in range(3):
        binance.failures, binance.asked = [(503, {})] * 3, []
        _read(source, _window(1))
        times = [moment for moment, path, _ in binance.asked if path.endswith("klines")]
        waits = [b - a for a, b in pairwise(times)]
        assert all(wait >= floor for wait, floor in zip(waits, (0.05, 0.1, 0.2), strict=True))
        spread.append(waits[0])
    assert max(spread) - min(spread) > 0.001


def test_a_venue_that_says_how_long_to_wait_is_obeyed(binance: Binance) -> None:
    binance.failures = [(429, {"Retry-After": "1"})]
    source = _source(binance, longest_wait=0.3)
    _read(source, _window(1))
    first, second = [moment for moment, path, _ in binance.asked if path.endswith("klines")]
    assert 0.3 <= second - first < 1.0  # a second asked for, 0.3 the longest that this source waits


def test_a_venue_that_stays_away_is_unavailable(binance: Binance) -> None:
    binance.failures = [(503, {})] * 9
    with pytest.raises(
        VenueUnavailable, match=r"binance ETH/USDT 1m \[2024-06-25 .* did not answer 3 times.*then run again"
    ):
        _read(_source(binance, attempts=3), _window(1))
    assert binance.paths().count("klines") == 3


def test_a_venue_that_does_not_listen_is_unavailable(binance: Binance) -> None:
    source = _source(binance, attempts=2)
    source.exchange.urls["api"]["public"] = "http://127.0.0.1:9/api/v3"  # the discard port: nobody is there
    with pytest.raises(VenueUnavailable, match="did not answer 2 times"):
        _read(source, _window(1))


def test_an_unknown_symbol_is_refused_without_asking_again(binance: Binance) -> None:
    stream = Stream(venue="binance", symbol="ETH/USDC", timeframe="1m")
    with pytest.raises(SettingRefused, match=r"binance has no ETH/USDC; did you mean ETH/USDT"):
        _read(_source(binance), _window(1), stream)
    assert binance.paths() == ["exchangeInfo"]


def test_a_request_that_the_venue_refuses_is_not_repeated(binance: Binance) -> None:
    binance.failures = [(400, {})] * 9
    with pytest.raises(SettingRefused, match=r"binance refused \(BadSymbol"):
        _read(_source(binance), _window(1))
    assert binance.paths().count("klines") == 1


def test_a_timeframe_that_the_venue_lacks_is_refused(binance: Binance) -> None:
    source = _source(binance)
    source.exchange.timeframes = {"1m": "1m", "1h": "1h"}
    with pytest.raises(SettingRefused, match=r"timeframe = '1s': binance has candles of 1m, 1h"):
        _read(source, _window(1), Stream(venue="binance", symbol="ETH/USDT", timeframe="1s"))


def test_an_unknown_venue_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingRefused, match=r"ccxt:binanse.*did you mean .*binance"):
        CcxtRest("binanse")


def test_streams_of_another_venue_are_refused(binance: Binance) -> None:
    with pytest.raises(SettingRefused, match="kraken ETH/USDT 1m"):
        _read(_source(binance), _window(1), Stream(venue="kraken", symbol="ETH/USDT", timeframe="1m"))
    assert binance.asked == []
