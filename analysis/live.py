"""Training as it happens: rows of a growing log, read once each, and small charts that keep their zoom.

The charts are Altair's: Streamlit puts new rows into a Vega chart that stands, where a Plotly chart is drawn anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import altair as alt
import pandas as pd

from analysis import theme, training
from unlearn_core.files import damaged, unreadable
from unlearn_core.store import Run
from unlearn_core.vocabulary import LOSS_LABELS, UNLEARNED

MODELS = ("base", *UNLEARNED)
HEIGHT = 290  # pixels of one chart
DASHES = {"solid": [1, 0], "dash": [6, 4], "dot": [2, 3]}  # Plotly's names in pixels
SELECTION = "zoom"  # name of the chart's parameter that holds what is in view
ZOOM = "wheel![event.ctrlKey || event.metaKey]"  # a bare wheel scrolls the page, as on a map
HOW_TO_ZOOM = "Ctrl or Cmd with the wheel zooms, dragging moves, a double click shows all again."

# What is drawn: (column of the log, models) -> (title, axis). The base's loss has a scale of its own.
LOSSES = {
    ("loss", ("base",)): ("Base: does the loss reach its floor?", "Cross-entropy (nats)"),
    ("loss", UNLEARNED): ("Does the total loss fall?", "Total loss (weighted sum)"),
    ("npo", UNLEARNED): ("Forgetting: does NPO fall?", LOSS_LABELS["npo"]),
    ("gdr", UNLEARNED): ("Retaining: does GDR stay low?", "GDR: cross-entropy"),
    ("klr", UNLEARNED): ("Retaining: does KLR stay low?", "KLR: KL divergence"),
    ("forget_nll", UNLEARNED): ("Forget: does the NLL rise?", "Nats per answer token"),
    ("retain_nll", UNLEARNED): ("Retain: does the NLL stay?", "Nats per answer token"),
}
MACHINE = {
    ("tokens_per_second", MODELS): ("Is it as fast as before?", "Tokens per second"),
    ("memory_mb", MODELS): ("Does memory stay below the device's?", "Peak memory (MiB)"),
}
COLUMNS = tuple(dict.fromkeys(column for column, _ in (LOSSES | MACHINE)))


# ---- the log ---------------------------------------------------------------------------------------------------

class StepLog:
    """Rows of the step log of one model. Each `read` takes only the bytes that came since the last one.

    An unfinished last line waits for its end. A log that was written anew, as by a training that goes on at its last
    checkpoint, is another file, or a shorter one, or its steps go back: it is then read from the start.
    """

    def __init__(self, path: Path):
        self.path = path
        self._start_again(None)

    def read(self) -> list[dict]:
        """All whole rows so far; [] where there is no log. An InputError names a damaged line."""
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                identity = (about.st_dev, about.st_ino)
                if identity != self.file or about.st_size < self.offset:
                    self._start_again(identity)
                file.seek(self.offset)
                text = file.read()
        except FileNotFoundError:
            self._start_again(None)
            return []
        except OSError as error:
            raise unreadable(self.path, error) from None
        whole = text[: text.rfind(b"\n") + 1]
        lines = enumerate(whole.split(b"\n"), len(self.rows) + 1)
        new = [self._row(line, number) for number, line in lines if line.strip()]
        if new and self.rows and new[0]["step"] <= self.rows[-1]["step"]:
            self._start_again(identity)
            return self.read()
        self.rows += new
        self.offset += len(whole)
        return self.rows

    def _start_again(self, identity: tuple[int, int] | None) -> None:
        self.rows: list[dict] = []
        self.offset = 0  # bytes that were read
        self.file = identity

    def _row(self, line: bytes, number: int) -> dict:
        try:
            row = json.loads(line.decode("utf-8"))
            return row | {"step": int(row["step"])}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(f"{self.path}, line {number}", f"a broken line ({error})") from None


def logs(run: Run) -> dict[str, StepLog]:
    """A reader for each model that a run trains."""
    return {model: StepLog(run.steps_path(model)) for model in MODELS}


def table(rows: dict[str, list[dict]]) -> pd.DataFrame:
    """One row per optimizer step of each model: model, step and `COLUMNS`; missing where a model has no such term."""
    parts = [pd.DataFrame(found, columns=["step", *COLUMNS]).astype(float).assign(model=model)
             for model, found in rows.items() if found]
    columns = ["model", "step", *COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


# ---- charts ----------------------------------------------------------------------------------------------------

def panel(steps: pd.DataFrame, column: str, models: tuple[str, ...]) -> pd.DataFrame:
    """What one chart draws of `table`: step, value and model's label, at most `training.MAX_POINTS` a line, with the
    extremes kept. No rows where nothing of it was logged yet."""
    lines = [training.thin(steps[steps["model"] == model], column).assign(Model=theme.short_label(model))
             for model in models]
    found = pd.concat(lines, ignore_index=True)
    return found[["step", column, "Model"]].rename(columns={"step": "Step", column: "Value"})


def chart(points: pd.DataFrame, models: tuple[str, ...], axis: str) -> alt.Chart:
    """Lines of `panel` over the optimizer step. The specification never depends on the points, so that a chart in
    the browser takes new ones without losing its zoom."""
    labels = [theme.short_label(model) for model in MODELS]
    styles = [theme.style(model) for model in MODELS]
    color = alt.Scale(domain=labels, range=[style.color for style in styles])
    dash = alt.Scale(domain=labels, range=[DASHES[style.dash] for style in styles])
    return alt.Chart(points).mark_line(strokeWidth=1.6).encode(
        x=alt.X("Step:Q", title="Optimizer step", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(zero=False)),
        y=alt.Y("Value:Q", title=axis, scale=alt.Scale(zero=False)),
        color=alt.Color("Model:N", scale=color, legend=alt.Legend(
            orient="top", title=None, values=[theme.short_label(model) for model in models])),
        strokeDash=alt.StrokeDash("Model:N", scale=dash, legend=None),
        tooltip=["Model:N", "Step:Q", alt.Tooltip("Value:Q", title=axis, format=".4g")],
    ).properties(height=HEIGHT).add_params(
        alt.selection_interval(name=SELECTION, bind="scales", zoom=ZOOM))
