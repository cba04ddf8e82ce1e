"""What still holds what was to be forgotten: files inside a run folder with their sizes, and places outside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from analysis import theme
from unlearn_core.store import Run


def table(run: Run) -> list[dict]:
    """One row per kind of copy: what, where (inside: a path in the run folder), inside, files and bytes (None outside).

    The last one inside is the whole folder, so that nothing is left out.
    """
    return [*_inside(run), *_outside(run)]


def _inside(run: Run) -> Iterator[dict]:
    for model in run.models():
        label, own = theme.short_label(model), run.model_dir(model)
        checkpoints = (path for _, folder in run.checkpoints(model) for path in folder.rglob("*"))
        for what, paths in (("full weights", run.full_model_dir(model).rglob("*")),
                            ("adapter", run.adapter_dir(model).rglob("*")),
                            ("adapter that training began with", run.initial_adapter_dir(model).rglob("*")),
                            ("checkpoints", checkpoints),
                            ("state from which training resumes", run.resume_dir(model).rglob("*")),
                            ("recorded answers, drawn answers, losses and steps", own.glob("*.json*"))):
            yield from _files(run, f"{label}: {what}", paths)
    yield from _files(run, "Data as used, forget included", run.data_dir.rglob("*"))
    yield from _files(run, "Scores, probes and statistics of the weights", (
        path for path in run.result_files()
        if run.data_dir not in path.parents and run.model_dir("").resolve() not in path.resolve().parents))
    yield from _files(run, "Messages of the process", [run.log_path])
    yield from _files(run, "The whole run folder", run.path.rglob("*"))


def _files(run: Run, what: str, paths: Iterable[Path]) -> Iterator[dict]:
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    if sizes:
        where = Path(os.path.commonpath([path.parent for path in sizes])).relative_to(run.path).as_posix()
        yield {"what": what, "where": where, "inside": True, "files": len(sizes), "bytes": sum(sizes.values())}


def _outside(run: Run) -> Iterator[dict]:
    recipe, brought = run.recipe(), run.brought()
    places = {"Base": recipe.base.model, "Data": recipe.data.path or recipe.data.forget,
              "Run whose base was taken over": (run.info().get("started_from") or {}).get("run", "")}
    places |= {"Weights, checkpoints and log": "where the run was made, of which this is a recording" if run.recorded()
               else ""}
    places |= {f"{theme.short_label(name)}, as it was brought": one["model"] for name, one in brought.items()}
    places |= {f"Adapter of {theme.short_label(name)}": one["adapter"] for name, one in brought.items()}
    yield from ({"what": what, "where": where, "inside": False, "files": None, "bytes": None}
                for what, where in places.items() if where)
