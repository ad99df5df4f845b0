"""A real browser without a window, for those who have chromium and its driver."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

FLAGS = (
    "no-sandbox", "headless=new", "disable-background-networking", "disable-component-update", "disable-sync",
    "no-first-run", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,900",
)  # fmt: skip


def why_not() -> str:
    """What is missing for a browser; nothing where one can be started."""
    with contextlib.suppress(ImportError):
        import selenium  # noqa: F401

        missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
        return f"there is no {' and no '.join(missing)} on the PATH: the page is not looked at" if missing else ""
    return "selenium is not installed: the page is not looked at"


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser that keeps what its console and its network say."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
