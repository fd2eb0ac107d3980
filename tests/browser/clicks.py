"""Clicks every copy button of a `sign --format html` page and compares the clipboard with the text output. Watches
the payload's age.

    clicks.py PAGE header=FILE body=FILE
"""

import pathlib
import sys
import tempfile

from page import browser, clean, requests
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def main():
    page = pathlib.Path(sys.argv[1]).resolve().as_uri()
    expected = {name: pathlib.Path(file).read_text().rstrip("\n") for name, file in (a.split("=", 1) for a in sys.argv[2:])}
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
            driver.get(page)
            buttons = {b.get_attribute("data-of"): b for b in driver.find_elements(By.TAG_NAME, "button")}
            assert set(buttons) == {"header", "body", "curl"}, buttons
            for name, button in buttons.items():
                button.click()
                said = driver.find_element(By.ID, "said")
                WebDriverWait(driver, 30).until(lambda _: said.text.startswith("Copied") and name in said.text.lower())
                held = driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
                shown = driver.find_element(By.ID, name).get_property("textContent")
                assert held == shown == expected.get(name, shown), (name, held)
            age = driver.find_element(By.ID, "age")
            first = age.text
            assert first.endswith(" old"), first
            WebDriverWait(driver, 30).until(lambda _: age.text != first)
            header = driver.find_element(By.CLASS_NAME, "age")
            assert "stale" not in header.get_attribute("class")
            later = "const now = Date.now; Date.now = () => now() + 600000"
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": later})
            driver.get(page)
            stale = driver.find_element(By.ID, "age").text
            assert "10 min old" in stale and "stale" in stale, stale
            assert "stale" in driver.find_element(By.CLASS_NAME, "age").get_attribute("class")
            assert clean(driver), "the console is not empty"
            assert set(requests(driver)) <= {page}
        finally:
            driver.quit()


main()
