"""How the feed fares: the process, each of its connections, and the disk that it writes to. Pure."""

from hindsight.exchange.heartbeat import Beat, PartBeat
from hindsight.health.findings import Finding, Now, calls, follows, off, ok, span

BEAT_SECONDS = 10.0  # the feed writes one every second
PATIENCE_SECONDS = 60.0  # for what heals by itself: a connection made anew, a feed that has just started
FILLING_SECONDS = 300.0
ROOM, LITTLE_ROOM = 100 * 2**20, 2**30  # bytes free


def judge_feed(beat: Beat | None, now: Now) -> Finding:
    """Whether the feed is alive, and has reached the venue since it started. No `beat`: feed.json cannot be read."""
    if beat is None:
        return calls("feed", "feed", "dead", "feed.json cannot be read: restart `hindsight up`.", {})
    age, runs = beat.age_seconds(now.at), (beat.written_ms - beat.started_ms) / 1000
    figures = {"age": age, "lost_rows": sum(beat.lost.values()), "pid": beat.pid}
    if age > BEAT_SECONDS and not beat.is_wanted:
        return off("feed", "feed", "`hindsight up` was started without a feed.", figures)
    if age > BEAT_SECONDS:
        sentence = (
            f"The feed wrote feed.json last {span(age)} ago: it does not run, or cannot write. Start `hindsight up`, "
            "or look at what it says and at the free disk space; what was missed is fetched once it runs."
        )
        return calls("feed", "feed", "dead", sentence, figures)
    if not beat.parts and runs > PATIENCE_SECONDS:
        sentence = (
            f"The feed runs, and has not reached the venue for {span(runs)}: see whether this machine reaches it, and "
            "the settings source and venue_url."
        )
        return calls("feed", "feed", "dead", sentence, figures)
    if not beat.parts:
        return follows("feed", "feed", "late", "The feed is starting.", figures)
    lost = ", ".join(f"{count} {kind}" for kind, count in beat.lost.items())
    return ok("feed", "feed", f"It runs; rows lost for want of room: {lost}." if lost else "It runs.", figures)


def judge_part(name: str, beat: Beat | None, feed: Finding, now: Now) -> Finding:
    """How one connection of the feed fares."""
    part = None if beat is None else beat.parts.get(name)
    if beat is None or part is None:
        if feed.verdict == "off":
            return off("connection", name, feed.sentence, {})
        if feed.verdict != "ok":
            return follows("connection", name, feed.verdict, "See the feed.", {})
        return calls("connection", name, "dead", "The feed was started without it: restart `hindsight up`.", {})
    here_ms = beat.here_ms(now.at)
    figures = _figures(part, here_ms)
    if feed.verdict == "off":
        return off("connection", name, feed.sentence, figures)
    if feed.verdict != "ok":
        return follows("connection", name, feed.verdict, "See the feed.", figures)
    if part.state == "connected":
        return ok("connection", name, "It hears the venue.", figures)
    lasts = (here_ms - part.since_ms) / 1000
    if part.state == "filling":
        sentence = "It fetches what was missed; nothing to do."
        if lasts <= FILLING_SECONDS:
            return follows("connection", name, "late", sentence, figures)
        sentence = (
            f"It has been fetching what was missed for {span(lasts)}: see in its log whether the venue refuses it."
        )
        return calls("connection", name, "late", sentence, figures)
    sentence = f"Not connected for {span(lasts)}; it tries again by itself."
    if part.state == "silent":
        sentence = f"Connected, and the venue has said nothing for {span(lasts)}; it connects anew by itself."
    if lasts <= PATIENCE_SECONDS:
        return follows("connection", name, "late", sentence, figures)
    sentence += " See whether this machine reaches the venue, and whether the venue is open."
    return calls("connection", name, "dead", sentence, figures)


def judge_home(free_bytes: int, set_aside: int) -> list[Finding]:
    """Whether the disk has room, and whether anything has landed that could not be read."""
    room, refused = {"free_mebibytes": free_bytes // 2**20}, {"segments": set_aside}
    findings = [ok("home", "disk space", "There is room.", room), ok("home", "refused segments", "None.", refused)]
    if free_bytes < LITTLE_ROOM:
        sentence = f"{room['free_mebibytes']} MiB are free where HINDSIGHT_HOME is: make room."
        findings[0] = calls("home", "disk space", "dead" if free_bytes < ROOM else "late", sentence, room)
    if set_aside:
        sentence = (
            f"{set_aside} landed segments could not be read; the feed fetches candles that the venue still has once "
            "more. What else they held is missing. The reasons stand in landing/refused/: move a segment that you "
            "repaired back into landing/, and delete the others."
        )
        findings[1] = calls("home", "refused segments", "late", sentence, refused)
    return findings


def _figures(part: PartBeat, here_ms: float) -> dict[str, float | int | str | None]:
    return {
        "state": part.state,
        "age": None if part.last_message_ms is None else (here_ms - part.last_message_ms) / 1000,
        "messages": part.messages,
        "refused": sum(part.refused.values()),
        "refusals": ", ".join(f"{count} {reason}" for reason, count in part.refused.items()) or None,
        "reconnects": part.reconnects,
        "filled": part.filled,
        "missing": part.missing,
    }
