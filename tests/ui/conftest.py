"""A `hindsight up` on a simulated venue that is in a hurry, and a Chromium that looks at its UI.

    PICTURES=docs/images pytest -m browser tests/ui

also takes the pictures that docs/live.md shows.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from hindsight.settings import load

Seen = TypeVar("Seen")
SECONDS = 240.0  # for anything to happen, on a machine that has more to do
START = "2024-03-05"
SPEED = "10"  # a candle of a minute closes every six seconds
SETTINGS = {
    "MODELS": "transformer",
    "SOURCE": "simulated",
    "SYMBOLS": "ETH/USDT",
    "TIMEFRAMES": "1m",
    "VENUE_SPEED": SPEED,
    "FIRST_MONTH": "2024-01",
    "FIRST_CANDLES": "800",  # enough to predict and learn from at once
    "DEVICE": "cpu",
}
# Streams that this home was once asked for with other settings: the UI offers their months for a backfill.
EARLIER = ("simulated BTC/USDT 1h", "simulated BTC/USDT 1m")
NOWHERE = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
WIDE, HIGH, PICTURE_WIDE = 1600, 1000, 1280


@dataclass(frozen=True)
class Browser:
    """What a person does with the UI: goes to a page, waits until it shows something, reads, clicks, writes."""

    driver: WebDriver
    address: str
    pictures: Path | None

    def open(self, path: str) -> None:
        self.driver.get(f"{self.address}{path}")

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def texts(self, xpath: str) -> list[str]:
        return [element.text for element in self.driver.find_elements(By.XPATH, xpath)]

    def is_checked(self, xpath: str) -> bool:
        return self.driver.find_element(By.XPATH, xpath).is_selected()

    def wait(self, look: Callable[[], Seen], what: str) -> Seen:
        """What `look` sees as soon as it sees anything. A page that is just being drawn anew is looked at again."""
        deadline, hindered = time.monotonic() + SECONDS, None
        while True:
            try:
                seen = look()
            except WebDriverException as error:
                seen, hindered = None, error
            if seen:
                return seen
            if time.monotonic() > deadline:
                said = f"waited {SECONDS} s in vain until {what}; {self.driver.current_url} shows\n{self.text[:3000]}"
                raise AssertionError(said) from hindered
            time.sleep(0.2)

    def see(self, pattern: str) -> re.Match[str]:
        """The first place of the page that matches."""
        return self.wait(lambda: re.search(pattern, self.text), f"the page shows {pattern}")

    def click(self, xpath: str) -> None:
        self.wait(lambda: [self.driver.find_element(By.XPATH, xpath).click()], f"{xpath} can be clicked")

    def press(self, button: str, until: str | None = None) -> None:
        """Presses a button; with `until`, again where a page that was drawn anew meanwhile has not shown that one."""
        pressed = f"//button[starts-with(normalize-space(), '{button}')][not(@disabled)]"
        if until is None:
            self.click(pressed)
            return
        shown = f"//button[starts-with(normalize-space(), '{until}')]"

        def shows() -> bool:
            if not self.driver.find_elements(By.XPATH, shown):
                self.driver.find_element(By.XPATH, pressed).click()
                time.sleep(1.0)  # a dialog takes a moment to open
            return bool(self.driver.find_elements(By.XPATH, shown))

        self.wait(shows, f"{until} is shown once {button} is pressed")

    def write(self, xpath: str, text: str) -> None:
        """Puts `text` into a field in place of what is there, and leaves the field."""

        def stands_there() -> bool:
            field = self.driver.find_element(By.XPATH, xpath)
            field.send_keys(Keys.CONTROL + "a" + Keys.NULL, text, Keys.TAB)
            return field.get_attribute("value") == text

        self.wait(stands_there, f"{text} is written into {xpath}")

    def escape(self) -> None:
        ActionChains(self.driver).send_keys(Keys.ESCAPE).perform()

    def picture(self, name: str) -> None:
        """A picture of the page for the documentation, if it is asked for."""
        if self.pictures is not None:
            image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
            few_colours = image.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few_colours.save(self.pictures / f"{name}.png", optimize=True)


@contextmanager
def _running(output: Path, environment: dict[str, str], *arguments: str) -> Iterator[Callable[[str], str]]:
    """Runs `hindsight`, and yields what finds something in its output. At the end it has stopped when it is told to."""
    command = [sys.executable, "-m", "hindsight", *arguments]

    def found(pattern: str) -> str:
        deadline = time.monotonic() + SECONDS
        while not (match := re.search(pattern, output.read_text())):
            assert process.poll() is None, f"hindsight {arguments[0]} ended and said\n{output.read_text()}"
            assert time.monotonic() < deadline, f"waited {SECONDS} s in vain for {pattern} in\n{output.read_text()}"
            time.sleep(0.1)
        return match[1]

    with output.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
        try:
            yield found
            process.terminate()
            assert process.wait(SECONDS) == 0, output.read_text()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the UI of a `hindsight up` that listens to a venue."""
    folder = tmp_path_factory.mktemp("ui")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HINDSIGHT_", "DAGSTER_"))}
    settings = {f"HINDSIGHT_{name}": value for name, value in SETTINGS.items()}
    environment = plain | settings | {"HINDSIGHT_HOME": str(folder / "home")}
    streams = load(home=folder / "home").streams_path
    streams.parent.mkdir()
    streams.write_text("\n".join(EARLIER) + "\n")
    venue = ("venue", "--port", "0", "--speed", SPEED, "--start", START)
    with _running(folder / "venue", environment, *venue) as found:
        environment["HINDSIGHT_VENUE_URL"] = found(r"venue at (\S+)")
        with _running(folder / "up", environment, "up", "--port", "0") as found:
            ui = found(r"the UI opens at (\S+);")
            _wait_for_answer(ui)
            yield ui


def _wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/server_info", timeout=10).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"waited {SECONDS} s in vain for an answer of {url}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def chromium() -> Iterator[WebDriver]:
    """A browser without a window."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium or its driver is not installed (Debian's packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"host-resolver-rules={NOWHERE}"):
        options.add_argument(f"--{argument}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        size = {"width": WIDE, "height": HIGH, "deviceScaleFactor": PICTURE_WIDE / WIDE, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # Dagster asks every new visitor for an e-mail address, once.
        asked = {"source": "localStorage.setItem('communityNux', '\"1\"')"}
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", asked)
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def browser(chromium: WebDriver, address: str) -> Browser:
    """A browser that looks at the UI."""
    pictures = os.environ.get("PICTURES")
    return Browser(chromium, address, Path(pictures) if pictures else None)
