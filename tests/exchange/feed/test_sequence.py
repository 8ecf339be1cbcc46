"""The sequence of candles, and a market that it hears badly: whatever is lost, doubled or late, the rows are right."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.exchange.feed.messages import HeardCandle, Values
from hindsight.exchange.feed.sequence import FRUITLESS, HELD_BACK, CandleSequence
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.segments import Row
from hindsight.market.streams import TIMEFRAMES, Stream

START = 1_717_200_000_000
GRACE = 2000


def stream(timeframe: str) -> Stream:
    return Stream(venue="binance", symbol="ETH/USDT", timeframe=timeframe)


def values(seed: int) -> Values:
    chance = Random(seed)
    low, first, close, high = sorted(chance.uniform(90, 110) for _ in range(4))
    return first, high, low, close, chance.uniform(1, 5)


def heard(opened: int, seed: int, **told: object) -> HeardCandle:
    return HeardCandle(open_time_ms=opened, values=values(seed), **told)


def open_sequence(
    timeframe: str = "1m", position: int = START - 60_000, quiet=lambda start, end: False
) -> CandleSequence:
    sequence = CandleSequence(stream(timeframe), grace_ms=GRACE, is_quiet=quiet)
    sequence.begin(position)
    return sequence


def opens(rows: list[Row]) -> list[tuple[int, int | None]]:
    return [((row["open_time_ms"] - START) // 60_000, row["known_ms"]) for row in rows]


def final(number: int, seed: int | None = None, event_ms: int | None = None) -> HeardCandle:
    opened = START + number * 60_000
    event_ms = opened + 60_000 if event_ms is None else event_ms
    return heard(opened, number if seed is None else seed, is_final=True, event_ms=event_ms)


def forming(number: int, event_ms: int) -> HeardCandle:
    return heard(START + number * 60_000, 1000 + number, is_final=False, event_ms=event_ms)


def answer(sequence: CandleSequence, numbers: list[int], now_ms: int, want: str = "hole", seeds=None) -> list[Row]:
    candles = [heard(START + n * 60_000, (seeds or {}).get(n, n)) for n in numbers]
    return sequence.answer(
        candles,
        sequence.next_ms,
        asked_ms=now_ms,
        reached_ms=now_ms,
        now_ms=now_ms,
        want=want,  # type: ignore
    )


def test_a_candle_is_landed_when_the_venue_says_that_it_is_final_and_not_before() -> None:
    sequence = open_sequence()
    assert sequence.hear(forming(0, START + 59_999), START + 59_999) == []
    [row] = sequence.hear(final(0), START + 60_000)
    assert (row["open_time_ms"], row["known_ms"], row["closed_by"]) == (START, None, "flag")


def test_a_repeat_is_no_second_completion() -> None:
    sequence = open_sequence()
    assert len(sequence.hear(final(0), START + 60_000)) == 1
    assert sequence.hear(final(0), START + 60_100) == []
    assert sequence.hear(final(0, event_ms=START + 70_000), START + 70_000) == []
    assert sequence.corrections == 0


def test_a_forming_message_that_comes_after_the_close_changes_nothing() -> None:
    sequence = open_sequence()
    sequence.hear(final(0), START + 60_000)
    assert sequence.hear(forming(0, START + 58_000), START + 60_500) == []


def test_a_correction_is_a_row_known_at_its_event_time_and_an_older_one_is_no_news() -> None:
    sequence = open_sequence()
    sequence.hear(final(0), START + 60_000)
    [row] = sequence.hear(final(0, seed=7, event_ms=START + 90_000), START + 90_010)
    assert (row["known_ms"], row["close"]) == (START + 90_000, values(7)[3])
    assert sequence.hear(final(0, seed=8, event_ms=START + 80_000), START + 91_000) == []
    assert sequence.hear(final(0), START + 92_000) == []  # the first close, delayed
    assert sequence.corrections == 1


def test_a_correction_by_a_clock_that_is_behind_is_known_after_the_close() -> None:
    sequence = open_sequence()
    sequence.hear(final(0, event_ms=START + 57_000), START + 57_000)
    [row] = sequence.hear(final(0, seed=7, event_ms=START + 58_000), START + 58_000)
    assert row["known_ms"] == START + 60_001


def test_what_follows_a_hole_waits_for_rest_to_fill_it() -> None:
    sequence = open_sequence()
    now = START + 180_000
    assert sequence.hear(final(2), now) == []
    assert sequence.wants(now, now) == "hole"
    rows = answer(sequence, [0, 1, 2, 3], now + 5000)
    assert opens(rows) == [(0, None), (1, None), (2, None)]
    assert [row["closed_by"] for row in rows] == ["rest", "rest", "flag"]
    assert sequence.wants(now, now) is None


def test_a_hole_that_rest_knows_no_candle_for_is_missing_and_the_next_one_goes_on() -> None:
    sequence = open_sequence()
    now = START + 180_000
    sequence.hear(final(2), now)
    assert opens(answer(sequence, [1, 2, 3], now + 5000)) == [(1, None), (2, None)]
    assert sequence.missing == 1


def test_nothing_is_missing_while_rest_has_not_come_as_far() -> None:
    sequence = open_sequence()
    now = START + 120_000
    sequence.hear(final(1), now)
    for _ in range(FRUITLESS - 1):
        assert answer(sequence, [], now) == []
    assert sequence.missing == 0
    assert opens(answer(sequence, [0, 1, 2], now + 500)) == [(0, None), (1, None)]


def test_rest_that_stays_behind_for_good_does_not_hold_a_stream_up_for_ever() -> None:
    sequence = open_sequence()
    now = START + 120_000
    sequence.hear(final(1), now)
    rows = [row for _ in range(FRUITLESS) for row in answer(sequence, [], now)]
    assert opens(rows) == [(1, None)]
    assert sequence.missing == 1


def test_a_candle_that_was_given_up_and_comes_late_is_known_late() -> None:
    sequence = open_sequence()
    now = START + 180_000
    sequence.hear(final(2), now)
    answer(sequence, [1, 2, 3], now + 5000)
    [row] = sequence.hear(final(0, event_ms=now + 9000), now + 9000)
    assert (row["open_time_ms"], row["known_ms"]) == (START, now + 9000)


def test_the_last_candle_of_an_answer_is_forming_until_the_market_has_passed_its_close() -> None:
    sequence = open_sequence()
    closes = START + 60_000
    for clock, reached in ((closes + 9000, closes - 1), (closes - 1, closes + 9000), (closes + GRACE - 1,) * 2):
        candles = [heard(START, 0)]
        asked = {"asked_ms": clock, "reached_ms": reached, "now_ms": clock}
        assert sequence.answer(candles, START, **asked, want="clock") == []
    assert sequence.wants(closes + 9000, closes - 1) is None
    assert sequence.wants(closes + GRACE, closes + GRACE) == "clock"
    [row] = answer(sequence, [0], closes + GRACE, want="clock")
    assert row["closed_by"] == "clock"


def test_a_candle_that_is_stamped_ahead_proves_no_other_one_closed() -> None:
    sequence = open_sequence()
    now = START + 51_000
    assert answer(sequence, [0, 1], now) == []
    assert sequence.wants(now, now) is None
    [row] = answer(sequence, [0, 1], START + 60_000, seeds={0: 7})
    assert (row["close"], row["known_ms"]) == (values(7)[3], None)
    assert (sequence.corrections, sequence.missing) == (0, 0)


def test_two_closes_in_the_wrong_order_come_out_in_the_right_one() -> None:
    sequence = open_sequence()
    assert sequence.hear(final(1), START + 120_000) == []
    assert opens(sequence.hear(final(0), START + 120_001)) == [(0, None), (1, None)]


def test_a_correction_of_a_candle_that_waits_follows_its_first_delivery() -> None:
    sequence = open_sequence()
    sequence.hear(final(1), START + 120_000)
    sequence.hear(final(1, seed=9, event_ms=START + 130_000), START + 130_000)
    assert opens(sequence.hear(final(0), START + 140_000)) == [(0, None), (1, None), (1, START + 130_000)]


def test_rest_corrects_what_the_socket_did_not_but_only_with_news() -> None:
    sequence = open_sequence()
    sequence.hear(final(0), START + 60_000)
    sequence.hear(final(1), START + 120_000)
    sequence.hear(final(1, seed=9, event_ms=START + 121_000), START + 121_000)
    candles = [heard(START, 8), heard(START + 60_000, 1), heard(START + 120_000, 2)]
    late = {"asked_ms": START + 150_000, "reached_ms": START + 150_000, "now_ms": START + 150_050}
    # The first has changed; the second is as it was before its correction: an answer out of date.
    [row] = sequence.answer(candles, START, **late, want="hole")
    assert (row["open_time_ms"], row["close"], row["known_ms"]) == (START, values(8)[3], START + 150_050)
    assert sequence.answer(candles, START, **late, want="hole") == []


def test_rest_is_no_news_so_soon_after_a_close() -> None:
    sequence = open_sequence()
    sequence.hear(final(0), START + 60_000)
    candles = [heard(START, 8), heard(START + 60_000, 1)]
    soon = {"asked_ms": START + 60_500, "reached_ms": START + 60_500, "now_ms": START + 60_600}
    assert sequence.answer(candles, START, **soon, want="hole") == []


def test_a_stream_held_back_keeps_a_bounded_number_and_gets_the_rest_back() -> None:
    sequence = open_sequence()
    for number in range(1, HELD_BACK + 500):
        assert sequence.hear(final(number), START + number * 60_000 + 60_000) == []
    assert len(sequence._pending) == HELD_BACK
    rows: list[Row] = []
    now = START + (HELD_BACK + 501) * 60_000
    while sequence.wants(now, now) == "hole":
        first = (sequence.next_ms - START) // 60_000
        rows += answer(sequence, list(range(first, min(first + 1000, HELD_BACK + 500))), now)
    assert opens(rows) == [(number, None) for number in range(HELD_BACK + 500)]


# Without flags


def test_without_a_flag_the_next_candle_closes_the_last() -> None:
    sequence = open_sequence()
    assert sequence.hear(heard(START, 1), START + 59_000) == []
    assert sequence.hear(heard(START, 2), START + 59_500) == []
    [row] = sequence.hear(heard(START + 60_000, 3), START + 60_100)
    assert (row["close"], row["closed_by"], row["known_ms"]) == (values(2)[3], "next", None)


def test_without_a_flag_a_candle_that_is_stamped_ahead_closes_none() -> None:
    sequence = open_sequence()
    assert sequence.hear(heard(START, 1), START + 50_000) == []
    assert sequence.hear(heard(START + 60_000, 1), START + 51_000) == []
    assert sequence.hear(heard(START, 2), START + 59_500) == []
    [row] = sequence.hear(heard(START + 60_000, 3), START + 60_000)
    assert (row["close"], row["closed_by"]) == (values(2)[3], "next")


def test_without_a_flag_a_candle_cut_by_a_lost_connection_is_asked_for() -> None:
    sequence = open_sequence()
    sequence.hear(heard(START, 1), START + 30_000)
    sequence.disconnect()
    assert sequence.hear(heard(START + 60_000, 3), START + 65_000) == []
    assert sequence.wants(START + 65_000, START + 65_000) == "hole"
    [row] = answer(sequence, [0, 1], START + 65_000)
    assert (row["close"], row["closed_by"]) == (values(0)[3], "rest")


# Quiet seconds


def second(number: int, **told: object) -> HeardCandle:
    return heard(START + number * 1000, number, **told)


def closed_second(number: int, trade_ids: tuple[int, int], ids: TradeIds) -> HeardCandle:
    ids.saw(*trade_ids, START + number * 1000, START + number * 1000 + 999)
    return second(number, is_final=True, event_ms=START + number * 1000 + 1000, trade_ids=trade_ids)


def test_a_second_that_the_venue_leaves_out_is_quiet_where_the_trades_around_it_adjoin() -> None:
    ids = TradeIds()
    sequence = open_sequence("1s", START - 1000, ids.is_quiet)
    sequence.hear(closed_second(0, (10, 14), ids), START + 1000)
    rows = sequence.hear(closed_second(3, (15, 15), ids), START + 4000)
    assert [row["open_time_ms"] - START for row in rows] == [1000, 2000, 3000]
    close = values(0)[3]
    for row in rows[:2]:
        assert [row[name] for name in ("open", "high", "low", "close", "volume")] == [close] * 4 + [0.0]
        assert row["closed_by"] == "trades"


def test_a_second_with_a_trade_in_it_is_asked_for_and_missing_if_nobody_has_it() -> None:
    ids = TradeIds()
    sequence = open_sequence("1s", START - 1000, ids.is_quiet)
    sequence.hear(closed_second(0, (10, 14), ids), START + 1000)
    now = START + 3000
    assert sequence.hear(closed_second(2, (16, 17), ids), now) == []
    assert sequence.wants(now, now) == "hole"
    candles = [second(2), second(3)]
    asked = {"asked_ms": now, "reached_ms": now, "now_ms": now}
    assert sequence.answer(candles, START + 1000, **asked, want="hole") == []
    assert sequence.wants(now, now) == "proof"
    rows = sequence.proven(sequence.hole[1])
    assert [row["open_time_ms"] - START for row in rows] == [2000]
    assert sequence.missing == 1


def test_silence_is_not_quiet_however_long_it_lasts() -> None:
    ids = TradeIds()
    sequence = open_sequence("1s", START - 1000, ids.is_quiet)
    sequence.hear(closed_second(0, (10, 14), ids), START + 1000)
    assert sequence.again() == []
    assert sequence.wants(START + 900_000, START + 900_000) == "clock"


def test_an_hour_without_a_trade_is_an_outage_though_the_ids_adjoin() -> None:
    ids = TradeIds()
    sequence = open_sequence("1s", START - 1000, ids.is_quiet)
    sequence.hear(closed_second(0, (10, 14), ids), START + 1000)
    assert sequence.hear(closed_second(3600, (15, 15), ids), START + 3_601_000) == []


def test_a_quiet_second_needs_the_close_before_it() -> None:
    ids = TradeIds()
    sequence = open_sequence("1s", START, ids.is_quiet)  # begins after a candle that it never saw
    ids.saw(14, 14, START + 500, START + 500)
    assert sequence.hear(closed_second(2, (15, 15), ids), START + 3000) == []


# The whole of it, heard badly


@dataclass
class Market:
    """What happened: closes, corrections, and seconds that the venue leaves out."""

    timeframe: str
    candles: dict[int, int]  # open time -> seed of its values
    corrections: dict[int, tuple[int, int]]  # open time -> known_ms, seed
    ids: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return int(TIMEFRAMES[self.timeframe].total_seconds() * 1000)

    def rest(self, since: int, now: int, limit: int = 20) -> list[HeardCandle]:
        rows = []
        for opened in sorted(self.candles):
            if since <= opened <= now and len(rows) < limit:
                seed = self.candles[opened]
                if opened in self.corrections and self.corrections[opened][0] <= now:
                    seed = self.corrections[opened][1]
                rows.append(heard(opened, seed if opened + self.step <= now else seed + 5000))
        return rows


def _next_known(market: Market, opened: int, quiet: set[int]) -> int:
    """The next second with trades: if nobody sees those, nothing tells whether the seconds before were quiet."""
    while opened in quiet:
        opened += market.step
    return opened if opened in market.ids else START + 70 * market.step


@given(
    timeframe=st.sampled_from(["1s", "1m"]),
    seed=st.integers(0, 2**32),
    lost=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    doubled=st.sampled_from([0.0, 0.3]),
    late=st.sampled_from([0, 1, 5]),
    has_flags=st.booleans(),
    rest_is_away=st.booleans(),
)
def test_whatever_is_lost_doubled_or_late_the_rows_are_those_of_the_market(
    timeframe: str, seed: int, lost: float, doubled: float, late: int, has_flags: bool, rest_is_away: bool
) -> None:
    chance = Random(seed)
    market = Market(timeframe, {}, {})
    step, count, next_id = market.step, 60, 100
    quiet, expected = set[int](), dict[int, object]()
    for number in range(count):
        opened, draw = START + number * step, chance.random()
        if number and draw < 0.1:
            market.ids[opened] = (next_id, next_id + 1)  # an outage: trades that nobody will ever see
            next_id += 2
            continue
        if timeframe == "1s" and number and draw < 0.3:
            quiet.add(opened)
            continue
        market.candles[opened] = number
        market.ids[opened] = (next_id, next_id + 3)
        next_id += 4
        if has_flags and chance.random() < 0.1:
            market.corrections[opened] = (opened + step + chance.randrange(1, 5 * step), 9000 + number)
    close = None
    end = START + (count + 10) * step
    market.candles[end] = 4999  # the market goes on: what was before it is over
    market.ids[end] = (next_id, next_id)
    for number in range(count):
        opened = START + number * step
        if opened in market.candles:
            expected[opened] = values(market.candles[opened])
            close = values(market.candles[opened])[3]
        elif opened in quiet and close is not None and _next_known(market, opened, quiet) in market.candles:
            expected[opened] = (close, close, close, close, 0.0)
        else:
            close = None

    messages: list[tuple[int, HeardCandle]] = []
    for opened, number in list(market.candles.items())[:-1]:
        for at in (opened + step // 3, opened + step // 2):
            told = {"is_final": False, "event_ms": at} if has_flags else {}
            messages.append((at, heard(opened, number + 5000, **told)))
        closes = opened + step
        told = {"is_final": True, "event_ms": closes} if has_flags else {}
        # Where there are no flags the last word on a candle comes just before its close.
        messages.append((closes if has_flags else closes - 1, heard(opened, number, **told)))
    for opened, (known, number) in market.corrections.items():
        messages.append((known, heard(opened, number, is_final=True, event_ms=known)))
    heard_badly = []
    for at, message in sorted(messages, key=lambda each: each[0]):
        is_last_word = not has_flags and message.values == values(market.candles[message.open_time_ms])
        is_correction = message.open_time_ms in market.corrections and message.event_ms is not None
        if chance.random() < lost and not is_last_word and not is_correction:
            continue
        delay = chance.randrange(late + 1) * step // 4 if has_flags else 0
        heard_badly += [(at + delay, message)] * (2 if chance.random() < doubled else 1)

    ids = TradeIds()
    sequence = CandleSequence(stream(timeframe), grace_ms=GRACE, is_quiet=ids.is_quiet)
    sequence.begin(START - step)
    rows: list[Row] = []
    away = range(START + 20 * step, START + 40 * step) if rest_is_away else range(0)

    def take(new: list[Row], now: int) -> None:
        for row in new:
            assert now >= row["open_time_ms"] + step, "landed before its close"
            assert row["known_ms"] is None or row["known_ms"] <= max(now, row["open_time_ms"] + step + 1)
        rows.extend(new)

    def ask(now: int) -> None:
        for _ in range(200):
            want = sequence.wants(now, now)
            if want is None or now in away:
                return
            if want == "proof":
                start, end = sequence.hole
                for opened, (first, last) in market.ids.items():
                    if start - step <= opened <= now and opened in market.candles:
                        ids.saw(first, last, opened, opened + step - 1)
                take(sequence.proven(end), now)
                continue
            before, since = sequence.position_ms, sequence.next_ms
            answered = market.rest(since, now)
            asked = {"asked_ms": now, "reached_ms": now, "now_ms": now}
            take(sequence.answer(answered, since, **asked, want=want), now)
            if sequence.position_ms == before:
                return

    for at, message in sorted(heard_badly, key=lambda each: each[0]):
        take(sequence.hear(message, at), at)
        ask(at)
    take(sequence.hear(heard(end, 4999, **({"is_final": False, "event_ms": end} if has_flags else {})), end), end)
    for later in range(20):
        ask(end + later)

    over = START + count * step  # what follows is quiet until the last message
    first = [row for row in rows if row["known_ms"] is None and row["open_time_ms"] < over]
    landed = [row["open_time_ms"] for row in first]
    assert landed == sorted(set(landed))
    assert landed == sorted(expected)
    finals: dict[int, Values] = {}
    for row in rows:
        finals[row["open_time_ms"]] = tuple(row[name] for name in ("open", "high", "low", "close", "volume"))
    for opened in landed:
        if opened in market.corrections:
            assert finals[opened] == values(market.corrections[opened][1])
        elif opened in market.candles:
            assert finals[opened] == expected[opened]
        else:
            assert finals[opened][4] == 0.0


@pytest.mark.parametrize("timeframe", ["1s", "1m"])
def test_a_sequence_that_goes_on_knows_what_was_landed_before(timeframe: str) -> None:
    step = stream(timeframe).step_ms
    first = CandleSequence(stream(timeframe), grace_ms=GRACE, is_quiet=lambda start, end: False)
    first.begin(START - step)
    rows = []
    for number in range(5):
        opened = START + number * step
        rows += first.hear(heard(opened, number, is_final=True, event_ms=opened + step), opened + step)
    again = CandleSequence(stream(timeframe), grace_ms=GRACE, is_quiet=lambda start, end: False)
    again.begin(START + 4 * step, rows)
    now = START + 60 * step
    repeat = heard(START, 0, is_final=True, event_ms=now)
    assert again.hear(repeat, now) == []
    [row] = again.hear(heard(START, 77, is_final=True, event_ms=now + 1), now + 1)
    assert row["known_ms"] == now + 1
