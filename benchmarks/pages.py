"""How fast the dashboard is in a real browser: python -m benchmarks.pages [--steps 5000] [--runs 5] [--repeat 5]

Makes a store with one large run (base, model_1 and model_2 with that many steps each, five scored models with 4,000
answers each, data of 1,500 documents, weight statistics of 32 layers with 7 matrices each) and smaller ones, serves it,
and measures per page, in seconds:

    paint    a link opened in a new tab, until the page's own first content (text, control or table) can be read
    chart    the same tab, until its first chart or table is drawn; most of it is the start of Streamlit and Plotly
    switch   a click on the page in the sidebar of an open tab, until its first chart or table is drawn
    react    a click on a widget of the page, until everything is drawn again

The browser's own clock tells paint (from the start of the navigation to the first frame after the content came) and
react (from the click's event until the script has ended, nothing on the page is stale, and a frame has been drawn).
Server and browser cache are warm: each page is opened once before, in another tab.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests import browser as b
from tests import example_run, test_merging
from unlearn_core.merging.merge import merge
from unlearn_core.merging.task_vectors import Adapter, Factors, save_adapter
from unlearn_core.store import Run
from unlearn_core.weight_changes import weights

PAGES = ("overview", "data", "train", "loss", "merge", "weights", "signs", "metrics", "leaks", "robustness",
         "generations")
PLAIN = ("train", "robustness")  # pages that begin without a chart or table
COLUMNS = ("paint", "chart", "switch", "react")
MAIN = "[data-testid='stMain'] "
CONTENT = ", ".join(MAIN + f"[data-testid='{name}']" for name in (
    "stCaptionContainer", "stButtonGroup", "stSelectbox", "stDataFrame", "stAlert", "stSubheader", "stTextInput"))
DRAWN = ".js-plotly-plot .main-svg, [data-testid='stDataFrame'] canvas, [data-testid='stVegaLiteChart'] canvas"
WATCH_PAINT = """content => {
    const watch = new MutationObserver(() => { if (document.querySelector(content)) { watch.disconnect();
        requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now() })) } });
    watch.observe(document, {childList: true, subtree: true}) }"""
WATCH_REACT = """() => {
    const app = document.querySelector('[data-testid="stApp"]');
    let clicked = null, ran = false;
    window.reacted = null;
    document.addEventListener('click', () => { clicked = performance.now() }, {capture: true, once: true});
    const watch = new MutationObserver(() => {
        if (clicked === null) return;
        const running = app.dataset.testScriptState === 'running';
        ran = ran || running;
        if (ran && !running && !document.querySelector('[data-stale="true"]')) { watch.disconnect();
            requestAnimationFrame(() => setTimeout(() => { window.reacted = performance.now() - clicked })) } });
    watch.observe(app, {attributes: true, subtree: true, childList: true}) }"""
PAINT_S, REACT_S = 2.0, 0.5  # what must be reached on 2 cores


def main() -> int:
    """Print the table; 1 if a page is slower than it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="optimizer steps of each of three models")
    parser.add_argument("--runs", type=int, default=5, help="runs in the store")
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each number; the median counts")
    parser.add_argument("--pages", nargs="+", default=PAGES, choices=PAGES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = large_store(Path(folder) / "runs", options.steps, options.runs)
        with b.served(run.path.parent) as address, b.browser() as browser:
            rows = [measure(browser, b.link(address, page, run.id), page, options.repeat) for page in options.pages]
    print(f"{options.steps} steps x 3 models, {options.runs} runs; median (worst) of {options.repeat}, seconds")
    print(f"{'page':14}" + "".join(f"{column:>16}" for column in COLUMNS))
    for page, columns in rows:
        print(f"{page:14}" + "".join(f"{statistics.median(c):8.2f} ({max(c):5.2f})" for c in columns.values()))
    slow = [page for page, columns in rows if statistics.median(columns["paint"]) > PAINT_S
            or statistics.median(columns["react"]) > REACT_S]
    print(f"bounds: paint {PAINT_S} s, react {REACT_S} s: {'missed by ' + ', '.join(slow) if slow else 'kept'}")
    return int(bool(slow))


def large_store(root: Path, steps: int, runs: int) -> Run:
    """A store whose newest run is the large one."""
    for seed in range(runs - 1):
        example_run.finished(root, f"Small {seed}", seed=seed + 1)
    run, chance = example_run.create(root, "Large"), random.Random(0)
    items = example_run.write_data(run, documents=250)
    example_run.write_base_steps(run, chance, steps)
    for model in ("model_1", "model_2"):
        example_run.write_steps(run, model, chance, steps)
    for model in example_run.CHARACTER:
        example_run.write_scores(run, model, chance, answers=example_run.answers(items, model, chance))
    run.write_scores()
    write_weights(run)
    test_merging.write(run)
    run.write_status("finished", "done")
    return run


def write_weights(run: Run, layers: int = 32, size: int = 48, rank: int = 8) -> None:
    """Adapters of a model of many small matrices, and what is measured on them."""
    names = [f"model.layers.{layer}.{module}" for layer in range(layers) for module in (
        *(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down")))]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    adapters = [Adapter({name: Factors(draw(rank, size), draw(size, rank)) for name in names},
                        {"peft_type": "LORA", "r": rank, "lora_alpha": rank}) for _ in range(2)]
    for model, adapter in zip(("model_1", "model_2", "merged"), [*adapters, merge(adapters)], strict=True):
        save_adapter(adapter, run.adapter_dir(model))
    weights.measure(run, "")
    weights.measure_signs(run)


def measure(browser, address: str, name: str, repeat: int) -> tuple[str, dict[str, list[float]]]:
    """(page, {column: seconds of each measurement}); the first opening, which warms everything, is not counted."""
    found: dict[str, list[float]] = {column: [] for column in COLUMNS}
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    for number in range(repeat + 1):
        page = context.new_page()
        page.set_default_timeout(b.PATIENCE_S * 1000)
        page.add_init_script(f"({WATCH_PAINT})({json.dumps(CONTENT)})")
        started = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_function("() => window.painted")
        times = {"paint": page.evaluate("() => window.painted") / 1000}
        page.wait_for_selector(CONTENT if name in PLAIN else DRAWN)
        times["chart"] = time.perf_counter() - started
        b.settle(page)
        page.wait_for_timeout(500)
        times["react"] = use_a_widget(page, name)
        go_to(page, "loss" if name != "loss" else "overview")
        times["switch"] = go_to(page, name)
        if number:
            for column, seconds in times.items():
                found[column].append(seconds)
        page.close()
    context.close()
    return name, found


def go_to(page, name: str) -> float:
    """Seconds from a click on a page in the sidebar until its title stands and its first chart or table is drawn."""
    started = time.perf_counter()
    page.get_by_test_id("stSidebarNav").get_by_text(b.title(name), exact=True).click()
    page.wait_for_function("title => document.querySelector('h1').innerText === title", arg=b.title(name))
    page.wait_for_function("() => !document.querySelector('[data-stale=\"true\"]')")
    page.wait_for_selector(CONTENT if name in PLAIN else DRAWN)
    seconds = time.perf_counter() - started
    b.settle(page)
    return seconds


def use_a_widget(page, name: str) -> float:
    """Seconds from a click on a typical widget of the page until the script has run and drawn."""
    widget = {
        "overview": lambda: page.get_by_text("Show archived", exact=False).first,
        "data": lambda: page.get_by_text("Show personal data", exact=False).first,
        "train": lambda: page.get_by_text("Only what differs", exact=True).first,
        "loss": lambda: page.get_by_text("Log y", exact=True).first,
        "merge": lambda: page.get_by_text("ΔW", exact=True).first,
        "weights": lambda: page.get_by_role("button", name="k_proj", exact=True).first,
        "signs": lambda: page.get_by_text("by magnitude", exact=True).first,
        "metrics": lambda: page.get_by_role("button", name="Base", exact=True).first,
        "leaks": lambda: page.get_by_text("Show personal data", exact=False).first,
        "robustness": lambda: page.get_by_text("Depth", exact=True).first,
        "generations": lambda: page.get_by_role("button", name="Next").first,
    }[name]()
    page.evaluate(WATCH_REACT)
    widget.click()
    page.wait_for_function("() => window.reacted")
    b.settle(page)
    return page.evaluate("() => window.reacted") / 1000


if __name__ == "__main__":
    sys.exit(main())
