"""Alerts: what a person has to know, told to the log and to every Apprise URL of the setting alert_urls.

An alert is told again only after ten minutes, then after twenty, forty and so on, whoever raises it and however often;
at once where it became worse. Its end is told as well, once, if it was told itself. A sink that cannot be reached is
logged with the reason, and nothing more: whoever raises an alert has other work to do.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hindsight.health.alert_memory import Level, Told, remembered, worst
from hindsight.settings import Settings

logger = logging.getLogger(__name__)
AGAIN = timedelta(minutes=10)
LONGEST_PAUSE = timedelta(hours=6)
SINK_SECONDS = 10.0  # for all sinks together
LOG_LEVELS = {"info": logging.INFO, "success": logging.INFO, "warning": logging.WARNING, "failure": logging.ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What is wrong and what to do about it; two with the same title are the same alert."""

    title: str
    body: str
    level: Level = "failure"


def alert(settings: Settings, title: str, body: str, level: Level, now: datetime) -> bool:
    """Tells one alert, and whether it did: not where the same one was told a short while ago."""
    return bool(alert_all(settings, [Alert(title=title, body=body, level=level)], now))


def alert_all(settings: Settings, alerts: Iterable[Alert], now: datetime) -> list[Alert]:
    """Tells these alerts in one message, without those told a short while ago; which those are that were told."""
    with remembered(settings.home) as memory:
        due = [each for each in alerts if _is_due(memory, each, now)]
        held_back = {each.title: memory[each.title].held_back for each in due if each.title in memory}
        for each in due:
            before = memory.get(each.title)
            is_going_on = before is not None and before.is_open
            memory[each.title] = Told(
                at=now,
                since=before.since if before and is_going_on else now,
                level=each.level,
                times=before.times + 1 if before and is_going_on else 1,
            )
    if due:
        is_alone = len(due) == 1
        blocks = [_block(each, held_back.get(each.title, 0), has_title=not is_alone) for each in due]
        title = due[0].title if is_alone else f"{len(due)} alerts, the first: {due[0].title}"
        _tell(settings.alert_urls, title, blocks, worst(each.level for each in due))
    return due


def recovered(settings: Settings, titles: Iterable[str], now: datetime) -> list[str]:
    """Tells that these alerts have ended, in one message; those of them that were told and had not ended yet."""
    with remembered(settings.home) as memory:
        ended = [title for title in titles if title in memory and memory[title].is_open]
        since = {title: memory[title].since for title in ended}
        for title in ended:
            memory[title].is_open = False
            memory[title].times = memory[title].held_back = 0
        for title in [title for title, told in memory.items() if not told.is_open and now - told.at > AGAIN]:
            del memory[title]
    if ended:
        blocks = [f"{title}: over, after {_span(now - since[title])}." for title in ended]
        title = ended[0] if len(ended) == 1 else f"{len(ended)} alerts, the first: {ended[0]}"
        _tell(settings.alert_urls, f"recovered: {title}", blocks, "success")
    return ended


def standing(settings: Settings) -> dict[str, Told]:
    """The alerts that were told and have not ended, by title."""
    with remembered(settings.home) as memory:
        return {title: told for title, told in memory.items() if told.is_open}


def _is_due(memory: dict[str, Told], each: Alert, now: datetime) -> bool:
    told = memory.get(each.title)
    if told is None:
        return True
    pause = min(AGAIN * 2 ** min(max(0, told.times - 1), 10), LONGEST_PAUSE)
    if now - told.at >= pause or (told.is_open and worst([told.level, each.level]) != told.level):
        return True
    told.held_back += 1
    return False


def _block(each: Alert, held_back: int, *, has_title: bool) -> str:
    more = f"\n({held_back} more since this was told last)" if held_back else ""
    return f"{each.title}\n{each.body}{more}" if has_title else f"{each.body}{more}"


def _span(span: timedelta) -> str:
    return str(timedelta(seconds=round(span.total_seconds())))


def _tell(urls: Sequence[str], title: str, blocks: Sequence[str], kind: str) -> None:
    """Writes to the log, then to every sink side by side."""
    body = "\n\n".join(blocks)
    logger.log(LOG_LEVELS[kind], "ALERT %s: %s", title, body)
    if not urls:
        return
    from apprise import Apprise, AppriseAsset  # knows some 150 services, and takes 0.2 s to import

    sinks = Apprise(asset=AppriseAsset(app_id="Hindsight"))
    for place, url in enumerate(urls, start=1):
        if not sinks.add(url):  # it may hold a password, so it is not shown
            logger.error("entry %d of the setting alert_urls is no URL that Apprise knows: nothing goes there", place)
    if not len(sinks):
        return
    try:
        for sent in sinks.notify(title=f"Hindsight: {title}", body=body, notify_type=kind, timeout=SINK_SECONDS):
            if not sent:
                reason = "; ".join(entry.message for entry in sent.logs()) or "it gave no reason"
                logger.error("the alert %r did not reach %s: %s", title, sent.name, reason)
    except Exception:  # whatever one of its services may raise
        logger.exception("the alert %r was not sent", title)
