"""Pages in a real browser: what they ask for, what they complain of, how they look."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
# What a model may write to break out of the page.
HOSTILE = (
    "<script>document.title = 'owned'</script></script>"
    "<img src=http://127.0.0.1:9/x onerror=alert(1)>"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


def phone(scheme: str) -> dict[str, Any]:
    """Options of a tab on a phone, `light` or `dark`."""
    return {"viewport": {"width": 390, "height": 800}, "color_scheme": scheme}


class Opened:
    """A page in a tab of its own, with what it asked for and complained of."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for event in ("console", "pageerror", "dialog"):
            self.page.on(
                event, lambda event: self.complaints.append(str(getattr(event, "text", event)))
            )
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("body[data-ready=yes]")

    def expect(self, selector: str) -> Any:
        """Playwright's assertions about what `selector` finds, which wait until they hold."""
        sync_api = pytest.importorskip("playwright.sync_api")
        # A page is made anew every two seconds, and on a busy machine that takes more.
        sync_api.expect.set_options(timeout=60_000)
        return sync_api.expect(self.page.locator(selector))

    def scheme(self) -> str:
        """Whether it is dark text on light, `light`, or the other way round."""
        colours = self.page.evaluate(
            "[getComputedStyle(document.body).color,"
            " getComputedStyle(document.body).backgroundColor]"
        )
        ink, paper = (sum(map(int, c.strip("rgba()").split(",")[:3])) / 3 for c in colours)
        if paper > 200 > 60 > ink:
            return "light"
        return "dark" if ink > 200 > 60 > paper else f"unreadable: {colours}"

    def close(self) -> None:
        self._context.close()
