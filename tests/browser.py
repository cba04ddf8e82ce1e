"""The dashboard in a real browser: a server on a free port, Chromium driven by Playwright, and what to wait for.

Chromium is found at $CHROMIUM or under its usual names. Without it browser tests are skipped, and on CI they fail.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERIOUS = ("serious", "critical")  # of axe-core's minor, moderate, serious, critical
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
         "--no-first-run").split()
PATIENCE_S = 60.0  # for anything to appear on a busy machine


def chromium() -> str | None:
    """Path of the browser, None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def served(runs: Path, **environment: str) -> Iterator[str]:
    """Address of a dashboard on these runs; its output goes to server.log beside them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with (runs.parent / "server.log").open("a") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true", "--server.address",
             "localhost", "--server.port", str(port)], cwd=ROOT, stdout=log, stderr=log,
            env=os.environ | {"LETHE_RUNS": str(runs)} | environment)
    try:
        _wait_for(port, server)
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int, server: subprocess.Popen) -> None:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends and server.poll() is None:
        try:
            socket.create_connection(("localhost", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the dashboard's server did not start; see server.log")


@contextmanager
def browser() -> Iterator:
    """A Chromium without a window."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def tab(browser, address: str, *, width: int = 1400, height: int = 1000, scheme: str = "light") -> Iterator:
    """A page of the dashboard that has finished drawing, in a browser profile of its own."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(address)
        settle(page)
        yield page
    finally:
        context.close()


def link(address: str, page: str, run: str = "") -> str:
    """Address of a page, on a run; Overview is the first page and has no path."""
    path = "" if page == "overview" else page
    return f"{address}/{path}" + (f"?run={run}" if run else "")


def title(name: str) -> str:
    """Title of a page, by its name in addresses."""
    return {"signs": "Sign conflicts"}.get(name, name.capitalize())


def switch(page, name: str) -> None:
    """Go to another page by a click in the sidebar: quicker than its link, since the tab keeps what it has loaded."""
    page.get_by_test_id("stSidebarNav").get_by_text(title(name), exact=True).click()
    page.wait_for_function("title => document.querySelector('h1')?.innerText === title", arg=title(name))
    settle(page)


def settle(page) -> None:
    """Wait until the script has run, and what it drew has arrived."""
    page.wait_for_selector('[data-testid="stApp"][data-test-connection-state="CONNECTED"]')
    page.wait_for_selector("h1, [data-testid=\"stException\"]")
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_function("() => !document.querySelector('[data-stale=\"true\"], [data-testid=\"stSpinner\"]')")


def choose(page, label: str, option: str) -> None:
    """Pick an option of the select box with this label."""
    page.get_by_label(label, exact=False).first.click()
    page.get_by_role("option", name=option, exact=False).first.click()
    settle(page)


def click(page, name: str) -> None:
    """Press a button by its name."""
    page.get_by_role("button", name=name).first.click()


def inaccessible(page) -> list[str]:
    """What axe-core finds on the page that is serious or critical: a line for each element, with its rule.

    Left out are widgets that are switched off, which WCAG 2.2 (1.4.3) lets be pale; axe takes their labels for text.
    """
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("""() => axe.run(
        {exclude: [...document.querySelectorAll('[data-testid="stElementContainer"]:has(input:disabled)')]},
        {resultTypes: ['violations']}).then(found => found.violations)""")
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found if one["impact"] in SERIOUS for node in one["nodes"]]


def problems(page, patience_s: float = 15.0) -> list[str]:
    """What a person must never see on a page: an exception, an endless spinner, a chart with nothing in it.

    Charts and spinners get `patience_s` seconds to become right.
    """
    ends = time.monotonic() + patience_s
    while (found := _problems_now(page)) and time.monotonic() < ends:
        page.wait_for_timeout(200)
    return found


def _problems_now(page) -> list[str]:
    found = [f"exception: {box.inner_text()[:300]}" for box in page.locator('[data-testid="stException"]').all()]
    found += ["page not found"] * page.get_by_text("Page not found").count()
    found += ["a spinner that does not end"] * page.locator('[data-testid="stSpinner"]').count()
    empty = page.evaluate("""() => [...document.querySelectorAll('.js-plotly-plot')].filter(plot =>
        !(plot._fullData || []).some(trace => trace.visible === true
          && [trace.x, trace.y, trace.z, trace.values].some(v => v && v.length))
        && (plot._fullLayout?.shapes || []).length < 2).length""")  # a drawing has shapes and no traces
    found += ["an empty chart"] * empty
    cut = page.evaluate("""() => [...document.querySelectorAll('.js-plotly-plot')].filter(plot => {
        const edge = plot.getBoundingClientRect().left - 1
        return [...plot.querySelectorAll('.ytick text')].some(text => text.getBoundingClientRect().left < edge)
    }).length""")
    found += ["a chart whose labels are cut off"] * cut
    blank = page.evaluate("""() => [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].filter(
        chart => !chart.querySelector('canvas, svg')).length""")
    return found + ["an empty live chart"] * blank


def whole_page(page, path: Path) -> bytes:
    """A screenshot of all of the page, as long as it is."""
    height = page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    width = page.viewport_size["width"]
    page.set_viewport_size({"width": width, "height": min(int(height) + 40, 8000)})
    settle(page)
    page.wait_for_timeout(500)  # charts are drawn anew
    return page.screenshot(path=path)
