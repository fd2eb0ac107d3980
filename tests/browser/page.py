"""Opens pages in headless Chromium and fails where one makes a request, logs an error, or does not fit its screen.

    page.py DIRECTORY PAGE...

Screenshots at 375 and 1280 pixels, light and dark, and a print are left in DIRECTORY to be looked at.
"""

import base64
import json
import os
import pathlib
import sys
import tempfile

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service

QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def browser(profile):
    options = webdriver.ChromeOptions()
    for argument in [*QUIET.split(), f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    os.environ["HOME"] = str(profile)
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    driver.get("about:blank")
    requests(driver)  # those of the browser's own first page
    return driver


def requests(driver):
    """The addresses that were requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def clean(driver):
    """Whether the log is empty since the last call."""
    return not driver.get_log("browser")


def refuses_requests(driver):
    """Whether the page's own policy stops an image of another server."""
    driver.set_script_timeout(10)
    script = """
        document.addEventListener("securitypolicyviolation", event => arguments[0](event.effectiveDirective));
        new Image().src = "http://127.0.0.1:9/";
    """
    try:
        return driver.execute_async_script(script) == "img-src"
    except TimeoutException:
        return False


def look_at(driver, page, directory):
    address = page.resolve().as_uri()
    for width in (375, 1280):
        for scheme in ("light", "dark"):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            feature = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            driver.get(address)
            asked = requests(driver)
            assert asked == [address], f"{page.name} asked for {asked}"
            assert clean(driver), f"{page.name} logs errors"
            size = driver.execute_script("let e = document.documentElement; return [e.scrollWidth, e.scrollHeight]")
            assert size[0] <= width, f"{page.name} is {size[0]} pixels wide on a screen of {width}"
            too_small = "return [...document.querySelectorAll('body *')].filter(e => e.innerText && parseFloat(getComputedStyle(e).fontSize) < 12).length"
            assert driver.execute_script(too_small) == 0, f"{page.name} has text that is too small to be read"
            clip = {"x": 0, "y": 0, "width": width, "height": size[1], "scale": 1}
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
            (directory / f"{page.stem}-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
    assert refuses_requests(driver), f"{page.name} lets its content make requests"
    # The refusal is in both logs.
    requests(driver), clean(driver)
    printed = driver.execute_cdp_cmd("Page.printToPDF", {})
    (directory / f"{page.stem}.pdf").write_bytes(base64.b64decode(printed["data"]))


def main():
    directory, *pages = map(pathlib.Path, sys.argv[1:])
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            for page in pages:
                look_at(driver, page, directory)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
