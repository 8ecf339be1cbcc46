"""What a live run says of itself beside its materialisations."""

from datetime import UTC, datetime
from pathlib import Path

from assets.live import tell_failures
from hindsight.advance import Advanced
from hindsight.health.alerts import standing
from hindsight.settings import load
from hindsight.write import LearnReport

NOW = datetime(2024, 3, 2, 12, tzinfo=UTC)


def test_a_lesson_that_fails_calls_a_person_until_it_succeeds_and_does_not_fail_the_run(tmp_path: Path) -> None:
    settings = load(home=tmp_path, symbols=("ETH/USDT",))
    key = (settings.streams[0], "transformer")
    tell_failures(settings, Advanced(failures={key: ValueError("no such weight")}), NOW)
    ((title, told),) = standing(settings).items()
    assert title == f"transformer cannot predict or learn on {settings.streams[0]}"
    assert told.level == "failure"
    tell_failures(settings, Advanced(lessons={key: LearnReport()}), NOW)
    assert standing(settings) == {}
