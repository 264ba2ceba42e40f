"""Headless Chromium: the system's, else the one that Playwright downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "needs Chromium: the system's package chromium, or `playwright install chromium`"


@contextmanager
def chromium() -> Iterator:
    """A browser of Playwright.

    Raises:
        FileNotFoundError: there is none.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        executable = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
        if not Path(executable).exists():
            raise FileNotFoundError(MISSING)
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()
