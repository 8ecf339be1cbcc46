"""The real UI in a real browser: what a person sees of the live path, and starts and stops there."""

import re

import pytest

from tests.ui.conftest import Browser

pytestmark = pytest.mark.browser
STREAM = "simulated ETH/USDT 1m"
RUNS = "//a[starts-with(@href, '/runs/')]/ancestor::*[.//input[@type='checkbox']][1]"
TICKS = "//tr[.//td]"
LAUNCHED = "contains(text(), 'Launched run') or contains(text(), 'Created backfill')"
MARKET = ("candles", "indicators", "pivots", "order_book")
LEARNING = ("inference_references", "outcomes", "trend_validations", "checkpoints")


def test_every_sensor_is_on(browser: Browser) -> None:
    browser.open("/automation")
    for sensor in ("candle_closed", "pivot_confirmed", "freshness", "run_failed"):
        row = f"//a[contains(@href, '/sensors/{sensor}')]/ancestor::*[count(.//input[@type='checkbox']) = 2][1]"
        switch = f"({row}//input[@type='checkbox'])[2]"
        browser.wait(lambda switch=switch: browser.is_checked(switch), f"{sensor} is on")


def runs_by_close(browser: Browser, *statuses: str) -> dict[str, list[str]]:
    """What is said of each run of `advance` with one of these statuses, line by line, by the time of its event."""
    rows = [row.splitlines() for row in browser.texts(RUNS)]
    wanted = [row for row in rows if "advance" in row and set(statuses) & set(row)]
    return {line.partition(": ")[2]: row for row in wanted for line in row if "event_time" in line}


def succeeded_after(browser: Browser, time: str) -> list[str]:
    """What the list of runs says of the last one for a later event, as soon as one has succeeded."""
    seen = browser.wait(
        lambda: {each: row for each, row in runs_by_close(browser, "Success").items() if each > time},
        f"a run for an event after {time} has succeeded",
    )
    return seen[max(seen)]


def test_a_candle_that_closes_starts_a_run_that_says_what_it_is_about_and_succeeds(browser: Browser) -> None:
    browser.open("/runs")
    before = max(browser.wait(lambda: runs_by_close(browser, "Started", "Success"), "runs of advance are listed"))
    run = succeeded_after(browser, before)
    assert {"hindsight/trigger: candle", f"hindsight/streams: {STREAM}", "hindsight/models: transformer"} <= set(run)
    assert "candle_closed" in run
    browser.picture("runs")
    browser.open("/runs")
    browser.click(f"//a[starts-with(@href, '/runs/{run[0]}')]")
    browser.see(rf"Runs\n/\n{run[0]}\nSuccess\nRun of\nadvance")
    browser.see(r"ASSET_MATERIALIZATION\nMaterialized value candles\.")


def test_the_page_of_an_asset_shows_each_new_materialisation(browser: Browser) -> None:
    def shown() -> dict[str, str]:
        return dict(re.findall(r"^(\w+)\n.*[AP]M\n(.+)$", browser.text, re.MULTILINE))

    browser.open("/assets/candles")
    before = browser.wait(lambda: shown().get("closed"), "a materialisation is shown")
    browser.wait(lambda: shown().get("closed", before) != before, "the next materialisation is shown")
    candle = shown()
    assert (candle["mode"], candle["stream"], candle["refused"]) == ("live", STREAM, "0")
    assert int(candle["new"]) > 0
    assert float(candle["seconds_after_close"]) > 0
    browser.see(re.escape(f"2024-03|{STREAM}"))
    browser.picture("candles")


def test_ticks_say_what_they_started_and_why_they_started_nothing(browser: Browser) -> None:
    browser.open("/locations/hindsight/sensors/candle_closed")
    browser.wait(lambda: any("1 run requested" in row for row in browser.texts(TICKS)), "a tick has started a run")
    browser.picture("ticks")
    browser.open("/locations/hindsight/sensors/pivot_confirmed")
    browser.click(f"({TICKS}[.//span[text()='0 runs requested']])[1]//button[text()='0 runs requested']")
    browser.see(r"Skip reason: (no level-2 pivot was confirmed live in the last 20 s|run \w+ is in flight)")
    browser.picture("reason")


@pytest.mark.parametrize(("group", "assets"), [("market", MARKET), ("learning", LEARNING)])
def test_the_graph_of_assets_shows_how_fresh_each_is(browser: Browser, group: str, assets: tuple[str, ...]) -> None:
    browser.open(f"/locations/hindsight/asset-groups/{group}")
    for asset in assets:
        browser.see(rf"{asset}\nLatest event\n.*ago")
    browser.picture(group)


def launch(browser: Browser, months: str, stream: str, button: str, picture: str = "") -> None:
    """Materialises months of a stream from the page of the job `backfill`, and goes to where that is to be seen."""
    browser.open("/locations/hindsight/jobs/backfill")
    browser.press("Materialize all")
    browser.see(r"month\n.*\n.*\n2024-01\n20\d\d-\d\d\nstream")  # the partitions are there
    browser.write("//input[starts-with(@placeholder, 'ex:')]", months)
    browser.click("//*[contains(text(), 'Select a partition')]")
    browser.click(f"//*[@role='menuitem'][.//*[text()='{stream}']]")
    browser.escape()
    browser.see(button)
    if picture:
        browser.picture(picture)
    browser.press(button)
    browser.click(
        "//*[contains(text(), 'Launched run') or contains(text(), 'Created backfill')]/following::*[text()='View'][1]"
    )


def test_a_backfill_that_is_launched_in_the_ui_materialises_its_months(browser: Browser) -> None:
    launch(browser, "[2024-01...2024-02]", "simulated BTC/USDT 1h", "Launch backfill", "backfill")
    browser.see(r"Status\nSucceeded\n")
    browser.open("/assets/checkpoints?view=partitions")
    browser.see(r"Materialized \(3\)")  # two months of this stream, and the live one's


def test_a_run_that_is_terminated_in_the_ui_is_canceled_and_the_market_goes_on(browser: Browser) -> None:
    launch(browser, "2024-01", "simulated BTC/USDT 1m", "Launch 1 run")
    browser.see(r"Executing \(1\)[^(]*learning")  # the list of events scrolls on to the newest
    browser.press("Terminate", until="Terminate 1 run")
    browser.press("Terminate 1 run")
    browser.see(r"Runs\n/\n\w+\nCanceled\n")
    browser.see("RUN_CANCELED")
    browser.picture("canceled")
    browser.open("/runs")
    succeeded_after(browser, max(browser.wait(lambda: runs_by_close(browser, "Started", "Success"), "runs are listed")))
