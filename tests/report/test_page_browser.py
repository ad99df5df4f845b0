"""The page in a real browser: it sorts, filters, opens, keeps to itself, and can be used by everybody."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, why_not
from made_up import board, disc, made_up_pack, made_up_scores, put

from usbench.report.cells import cells
from usbench.report.index import Index
from usbench.report.page import page_text
from usbench.report.watch import Server, Watched
from usbench.runs.store import Store

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
HOSTILE = '</script><img src=x onerror="window.hit=1"><script>window.hit=1</script>\u202egnol'
COLUMN = """return [...document.querySelectorAll("table.board tbody tr")].filter((row) => !row.hidden)
    .map((row) => row.querySelector(arguments[0]).textContent)"""

DARK = [{"name": "prefers-color-scheme", "value": "dark"}]
TYPED = """const field = document.getElementById(arguments[0]);
    field.value = arguments[1]; field.dispatchEvent(new Event("input", {bubbles: true}))"""
CELLS = """return [...document.querySelector("table.board").tBodies[0].rows]
    .map((row) => row.querySelector(arguments[0])).map((cells) => {})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests of this file."""
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page with everything on it, and one of strange names."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USBENCH_DATA", str(folder / "home"))
        packs = {name: made_up_pack(folder / "home" / f"{name}.h5", name) for name in ("near", "far")}
        store = Store(folder / "store").open()
        losses = ["none", "none-long", *(f"loss-{k}" for k in range(8))]
        board(store, losses, packs, fractions=(50.0, 100.0), seeds=(0, 1), reconstruction=False)
        for loss in ("none", "loss-0"):
            for severity in (1, 3):
                arena = f"100.0/near/{severity}"
                put(store, loss, 0, -severity / 20, arena=arena, shift=f"blur:{severity}", test_data="near",
                    train_data="near", setting=f"b{severity}-{loss}")  # fmt: skip
        strange = Store(folder / "strange").open()
        for loss in ("none", HOSTILE):
            put(strange, loss, 0, 0.1, test_data=HOSTILE, train_data=HOSTILE, setting=f"{HOSTILE}{loss}")
        folds = Store(folder / "folds").open()
        for fold, loss in itertools.product(range(3), ("none", "loss-0")):
            scores = made_up_scores(fold, 0.0).assign(name=[f"{fold}-{k}" for k in range(30)])
            masks = np.stack([disc(64, k, 0.3) for k in range(30)])
            put(folds, loss, 0, 0.0, scores=scores, masks=masks, arena=f"{fold}/a", fold=str(fold))
        made = {}
        for name, place in (("board", store), ("strange", strange), ("folds", folds)):
            made[name] = folder / f"{name}.html"
            made[name].write_text(page_text(cells(Index([place]).results), [place], [], images=True), "utf-8")
    return made


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """`opened("board", width=…, dark=…)` → the browser with a page; afterwards nothing may have gone wrong in it."""

    def call(name: str = "board", *, width: int = 1400, dark: bool = False, url: str = "") -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get("about:blank")
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(url or pages[name].as_uri())
        return browser

    yield call
    assert browser.get_log("browser") == []


def asked(browser: Any) -> list[str]:
    """Every address that the browser asked for since it was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def press(browser: Any, *keys: str) -> None:
    """Keys, one after the other."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def on(browser: Any, script: str, *given: Any) -> Any:
    """What a script returns."""
    return browser.execute_script(script, *given)


def column(browser: Any, name: str) -> list[str]:
    """The visible texts of a column of all tables."""
    return on(browser, COLUMN, name)


def test_no_request_leaves_the_page_in_any_of_its_parts(opened: Any, pages: dict[str, Path]) -> None:
    browser = opened()
    on(browser, "document.querySelector('[data-row]').click(); document.querySelector('#origin summary').click()")
    on(browser, "document.getElementById('origin').close(); document.querySelector('.case').click()")
    time.sleep(0.3)
    addresses = asked(browser)
    assert pages["board"].as_uri() in addresses
    assert all(address.startswith(("data:", pages["board"].as_uri())) for address in addresses)
    assert on(browser, "return performance.getEntriesByType('resource').length") == 0
    assert pages["board"].stat().st_size < 5 * 2**20


def test_every_column_sorts_both_ways_and_back(opened: Any) -> None:
    browser = opened()
    before = column(browser, "th")
    head = "table.board th.c-score"
    sign = []
    for _ in range(3):
        on(browser, "document.querySelector(arguments[0] + ' button').click()", head)
        first = [float(text.split()[0]) for text in on(browser, CELLS.format("cells.textContent"), ".c-score")]
        sign.append((on(browser, "return document.querySelector(arguments[0]).getAttribute('aria-sort')", head),
                     first == sorted(first), first == sorted(first, reverse=True)))  # fmt: skip
    assert sign[0] == ("descending", False, True) and sign[1] == ("ascending", True, False) and sign[2][0] is None
    assert column(browser, "th") == before
    on(browser, "document.querySelector('table.board th.c-delta button').click()")
    shown = on(browser, CELLS.format("cells.dataset.v"), ".c-delta")
    known = [float(v) for v in shown if v is not None]
    assert known == sorted(known, reverse=True) and shown[len(known) :] == [None] * (len(shown) - len(known))


def test_filters_and_the_search_leave_what_fits_and_say_how_many(opened: Any) -> None:
    browser = opened()
    total = len(column(browser, "th"))
    on(browser, "document.querySelector('[data-filter=\"0\"]').id = 'tested-on'")
    on(browser, TYPED, "tested-on", "1")
    chosen = on(browser, "return document.querySelector('[data-filter=\"0\"]').selectedOptions[0].textContent")
    assert set(column(browser, ".c-test_data")) == {chosen}
    on(browser, TYPED, "find", "LOSS-3")
    left = column(browser, "th")
    assert set(left) == {"loss-3"} and len(left) == 2
    assert on(browser, "return document.getElementById('count').textContent") == f"2 of {total} rows"
    assert on(browser, "return document.getElementById('count').getAttribute('aria-live')") == "polite"
    on(browser, "document.querySelector('#filters [type=reset]').click()")
    time.sleep(0.1)
    assert len(column(browser, "th")) == total


def test_the_keyboard_reaches_sorting_and_the_origin_of_a_number(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened()
    press(browser, Keys.TAB)
    assert on(browser, "return document.activeElement.className") == "skip"
    on(browser, "document.querySelector('table.board th.c-mean_rank button').focus()")
    press(browser, Keys.ENTER)
    assert on(browser, "return document.querySelector('th.c-mean_rank').getAttribute('aria-sort')") == "ascending"
    on(browser, "document.querySelector('[data-row]').focus()")
    press(browser, Keys.SPACE)
    assert on(browser, "return document.getElementById('origin').open")
    said = on(browser, "return document.getElementById('origin').innerText")
    for words in ("key of the row", "data digest", "Scores", "Stages", "evaluate-", "finetune-", "What determined it"):
        assert words in said
    press(browser, Keys.ESCAPE)
    assert not on(browser, "return document.getElementById('origin').open")
    assert on(browser, "return document.activeElement.hasAttribute('data-row')")


def test_any_two_rows_stand_side_by_side_and_a_case_opens(opened: Any) -> None:
    browser = opened()
    set_of = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    options = "return [...document.getElementById(arguments[0]).options].map((o) => [o.value, o.textContent])"
    rows = on(browser, options, "case-a")
    assert len(rows) == 20
    for select, (value, _) in (("case-a", rows[7]), ("case-b", rows[12])):
        on(browser, set_of, select, value)
    captions = on(browser, "return [...document.querySelectorAll('.case .cap span')].map((s) => s.textContent)")
    assert captions == [f"A {rows[7][1]}", f"B {rows[12][1]}"] * 4
    assert on(browser, "return document.querySelectorAll('.case image').length") == 8
    assert on(browser, "return document.querySelectorAll('.case path.t').length") == 8
    on(browser, set_of, "case-mode", "own")
    assert on(browser, "return document.querySelectorAll('.case').length") == 6
    on(browser, "document.querySelector('.case').click()")
    assert on(browser, "return document.getElementById('case').open")
    on(browser, "document.getElementById('see-truth').click()")
    assert on(browser, "return getComputedStyle(document.querySelector('#case-body path.t')).display") == "none"


def test_cases_of_folds_are_shown_though_the_table_has_them_as_one_row(opened: Any) -> None:
    browser = opened("folds")
    assert len(column(browser, "th")) == 2
    assert on(browser, "return document.getElementById('case-set').options.length") == 3
    captions = on(browser, "return [...document.querySelectorAll('.case .cap span')].map((s) => s.textContent)")
    assert captions and all("loss-0" in text or "none" in text for text in captions)


def test_picking_a_method_singles_it_out_in_every_figure(opened: Any) -> None:
    browser = opened()
    on(browser, "document.querySelector('[data-pick]').click()")
    assert on(browser, "return document.querySelectorAll('.plot .ln.hot').length") >= 4
    on(browser, "document.querySelector('[data-pick]').click()")
    assert on(browser, "return document.querySelectorAll('.plot .ln.hot').length") == 0
    assert on(
        browser, "return [...document.querySelectorAll('svg.plot')].every((s) => s.querySelector('title').textContent)"
    )


def test_a_theme_is_that_of_the_system_until_one_is_chosen(opened: Any) -> None:
    light = "return getComputedStyle(document.body).backgroundColor"
    colours = {}
    for dark in (False, True):
        browser = opened(dark=dark)
        on(browser, "localStorage.clear()")
        browser.refresh()
        colours[dark] = on(browser, light)
    assert colours[False] != colours[True]
    seen = []
    for _ in range(3):
        on(browser, "document.getElementById('theme').click()")
        seen.append(on(browser, light))
    assert seen == [colours[False], colours[True], colours[True]]  # light, dark, and the system's again


@pytest.mark.parametrize("name", ["board", "strange"])
@pytest.mark.parametrize("width", [360, 768, 1400])
def test_only_tables_scroll_sideways(opened: Any, name: str, width: int) -> None:
    browser = opened(name, width=width)
    wide = "const r = document.documentElement; return [r.scrollWidth, document.body.scrollWidth, r.clientWidth]"
    page, body, window = on(browser, wide)
    assert max(page, body) <= window <= width
    on(browser, "document.querySelector('[data-row]').click()")
    assert on(browser, "const d = document.getElementById('origin'); return d.scrollWidth <= d.clientWidth")


def test_print_is_light_and_has_all_tables_and_no_controls(opened: Any) -> None:
    browser = opened(dark=True)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": DARK})
    seen = "return [...document.querySelectorAll(arguments[0])].map((one) => one.getClientRects().length > 0)"
    controls = on(browser, seen, "form, select, #theme, nav")
    assert not any(controls) and all(on(browser, seen, "table.board, table.heat, svg.plot"))
    assert on(browser, "return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_strange_names_do_nothing_in_a_browser(opened: Any) -> None:
    browser = opened("strange")
    on(browser, "document.querySelector('[data-row]').click()")
    on(browser, "document.querySelectorAll('#origin summary').forEach((s) => s.click())")
    time.sleep(0.2)
    text = on(browser, "return document.body.innerText")
    assert on(browser, "return window.hit === undefined && document.images.length === 0")
    assert "</script>" in text and "\u202e" not in text and "⟨U+202E⟩" in text


def axe() -> Path | None:
    """axe-core's script: named by USBENCH_AXE, or in a node_modules beside or above the tests."""
    if named := os.environ.get("USBENCH_AXE"):
        return Path(named)
    places = [folder / "node_modules" / "axe-core" / "axe.min.js" for folder in Path(__file__).resolve().parents]
    return next((place for place in places if place.is_file()), None)


@pytest.mark.skipif(axe() is None, reason="axe-core is not here (npm install axe-core, or name it by USBENCH_AXE)")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("part", ["page", "origin", "case"])
def test_axe_finds_nothing_serious(opened: Any, dark: bool, part: str) -> None:
    browser = opened(dark=dark, width=1400 if part != "origin" else 390)
    if part != "page":
        on(browser, "document.querySelector(arguments[0]).click()", "[data-row]" if part == "origin" else ".case")
        on(browser, "document.querySelectorAll('#origin summary').forEach((s) => s.click())")
    path = axe()
    assert path is not None
    on(browser, path.read_text("utf-8"))
    script = """const done = arguments[0];
        axe.run(document).then((found) => done([found.passes.length, found.violations]))"""
    browser.set_script_timeout(60)
    passed, violations = browser.execute_async_script(script)
    found = [
        (v["id"], v["impact"], [node["html"][:160] for node in v["nodes"]][:3])
        for v in violations
        if v["impact"] in ("serious", "critical")
    ]
    assert found == [] and passed > 10


def test_a_served_page_follows_its_store_and_keeps_what_was_chosen(opened: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    for loss in ("none", "first"):
        put(store, loss, 0, 0.1)
    with Server("127.0.0.1", 0, Watched([store], images=True)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            browser = opened(url=server.url)
            on(browser, TYPED, "find", "s")
            on(browser, "document.activeElement.blur()")
            assert column(browser, "th") == ["first"]
            put(store, "second", 0, 0.2)
            until = time.monotonic() + 20
            while time.monotonic() < until and len(column(browser, "th")) < 2:
                time.sleep(0.2)
            assert set(column(browser, "th")) == {"first", "second"}
            assert on(browser, "return document.getElementById('find').value") == "s"
            assert all(address.startswith((server.url, "data:")) for address in asked(browser))
        finally:
            server.shutdown()
            thread.join()
            browser.get("about:blank")
