"""Packs: an hour of archived segments in one file, each byte for byte."""

import fcntl
import gzip
from pathlib import Path

import pytest

from hindsight.errors import HomeUnwritable
from hindsight.exchange.landing import Landing
from hindsight.exchange.packs import HOUR_MS, pack, unpack
from hindsight.exchange.segments import decode

NOW = 1_717_200_000_000 // HOUR_MS * HOUR_MS


def archived(tmp_path: Path, *clocks: int) -> tuple[Landing, dict[str, bytes]]:
    landing, written = Landing(tmp_path / "landing"), {}
    for clock in clocks:
        row = {"symbol": "ETH/USDT", "venue": "binance", "trade_id": clock, "time_ms": clock}
        path = landing.write("trades", [{**row, "price": 1.5, "amount": 2.0, "side": "buy"}], clock, clock)
        written[path.name] = path.read_bytes()
        landing.archive(path)
    return landing, written


def test_whole_past_hours_are_packed_and_the_current_one_is_not(tmp_path: Path) -> None:
    landing, written = archived(tmp_path, NOW, NOW + 5, NOW + HOUR_MS - 1, NOW + HOUR_MS)
    [path] = pack(landing, NOW + HOUR_MS)
    assert path.name == "00.jsonl.gz"
    assert unpack(path) == dict(list(written.items())[:3])
    assert [each.name for each in path.parent.glob("*.jsonl")] == list(written)[3:]
    assert [decode(data, name).rows[0]["trade_id"] for name, data in unpack(path).items()][:2] == [NOW, NOW + 5]


def test_a_lock_that_cannot_be_had_is_told_like_a_full_disk(tmp_path: Path) -> None:
    landing, _ = archived(tmp_path, NOW)
    (landing.folder / "pack.lock").mkdir()
    with pytest.raises(HomeUnwritable, match=r"pack\.lock cannot be had"):
        pack(landing, NOW + 9 * HOUR_MS)


def test_packing_twice_is_once_and_a_segment_that_comes_late_joins_its_hour(tmp_path: Path) -> None:
    landing, written = archived(tmp_path, NOW, NOW + 5)
    [path] = pack(landing, NOW + 9 * HOUR_MS)
    before = path.read_bytes()
    assert pack(landing, NOW + 9 * HOUR_MS) == []
    first = next(iter(written))
    (path.parent / first).write_bytes(written[first])  # as if killed between writing the pack and removing
    pack(landing, NOW + 9 * HOUR_MS)
    assert path.read_bytes() == before
    late = path.parent / first.replace("-000000-", "-000007-")
    late.write_bytes(written[first])
    pack(landing, NOW + 9 * HOUR_MS)
    assert list(unpack(path)) == sorted([*written, late.name])


def test_two_do_not_pack_at_once(tmp_path: Path) -> None:
    landing, written = archived(tmp_path, NOW, NOW + 5)
    with (landing.folder / "pack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another call has it that is at it
        assert pack(landing, NOW + 9 * HOUR_MS) == []
        assert {path.name for path in landing.archived.glob("*/*")} == set(written)
    [path] = pack(landing, NOW + 9 * HOUR_MS)
    assert unpack(path) == written


def test_names_go_on_after_everything_was_packed(tmp_path: Path) -> None:
    landing, _ = archived(tmp_path, NOW)
    [path] = pack(landing, NOW + 9 * HOUR_MS)
    again = Landing(landing.folder)
    row = {"symbol": "ETH/USDT", "venue": "binance", "trade_id": 1, "time_ms": NOW, "price": 1.5, "amount": 2.0}
    assert again.write("trades", [{**row, "side": "buy"}], NOW, NOW).name > max(unpack(path))


@pytest.mark.parametrize("how", ["cut", "no gzip", "no name first", "a line that is no JSON"])
def test_a_damaged_pack_is_set_aside_and_packing_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    landing, written = archived(tmp_path, NOW, NOW + 5, NOW + HOUR_MS)
    later = list(written)[-1]
    [path, _] = pack(landing, NOW + 2 * HOUR_MS)
    whole = path.read_bytes()
    damages = {
        "cut": whole[: len(whole) // 2],
        "no gzip": b"\x00" * 50,
        "no name first": gzip.compress(b"{}\n"),
        "a line that is no JSON": gzip.compress(b'{"segment":\n'),
    }
    for attempt in range(2):
        path.write_bytes(damages[how])
        late = path.parent / next(iter(written)).replace("-000000-", f"-00000{attempt + 7}-")
        late.write_bytes(b"late\n")
        assert pack(landing, NOW + 2 * HOUR_MS) == [path]
        assert unpack(path) == {late.name: b"late\n"}
    asides = sorted(each.name for each in path.parent.glob("*.damaged*"))
    assert asides == ["00.jsonl.gz.damaged", "00.jsonl.gz.damaged-2"]
    assert list(unpack(path.parent / "01.jsonl.gz")) == [later]
    assert len([each for each in caplog.messages if "is damaged" in each]) == 2
