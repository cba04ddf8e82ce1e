"""Recordings: finished runs as small folders without weights, which the dashboard opens as examples. Torch-free."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path, PurePosixPath

import numpy as np

from unlearn_core import archive, data, launching, model_size
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import read_json, read_rows, replacing, replacing_dir
from unlearn_core.store import Run, now
from unlearn_core.vocabulary import is_retrained, shipped

MAX_BYTES = 5_000_000  # of a whole recording
DIGITS = 6  # significant ones, of measured numbers
LARGEST = 3  # files that a message names
SMALL = 1e9  # parameters
HALF = ("map", "values")  # large arrays that are only drawn: pictures of matrices, single scores behind a mean
UNSHOWN = "shadows"  # arrays from which only the engine goes on
OF_A_PROCESS = ("pid", "process_started", "sweep")  # what a manifest or status says of this machine or store alone
# A path in a text that is absolute or leads out of the working folder; its last part says what it was, the rest where
# on a machine it lay.
OUTSIDE = re.compile(r"""(?:(?<![\w.:/~)\]])/|(?<![\w./])(?:\.\./)+)(?:[^\s/'",=]+/)*([^\s/'",=]+)/?""")


def record(run: Run, out: Path, *, texts: bool = True) -> Run:
    """Copy the results of a finished run to `out`/<run id>, whole or not at all; an older recording there is replaced.

    Left out are weights, checkpoints, resume state, log, job, and what no page shows: steps of control models, single
    numbers of shadows; without `texts` also what was asked and answered, where the data may not be given away. Paths
    that are absolute or lead out of the working folder are shortened to their last part. Numbers that no hash covers
    and no stored score is computed from keep `DIGITS` significant digits (`Run.long_files`) or become float32 (arrays;
    `HALF` float16); all others stay as they are. `Run.recorded` says what the recording is. An InputError for a run
    that is not finished or is a recording itself, and above `MAX_BYTES`.
    """
    run.refuse_if_recorded()
    state = run.status()["state"]
    if state != "finished":
        raise InputError(f"run {run.id}", got=f"a run that is {state}", expected="a finished one")
    target, facts = Path(out) / run.id, _facts(run, texts)
    with replacing_dir(target) as place:
        sizes = {name: _copy(run, name, Run(place)) for name in _taken(run, texts)}
        _check_size(run, sizes)
        facts["sizes"] |= {"files": len(sizes), "bytes": sum(sizes.values())}
        Run(place).note(recorded=facts)
    return Run(target)


# ---- files -----------------------------------------------------------------------------------------------------

def _taken(run: Run, texts: bool) -> list[str]:
    """Names of the files that a recording has, below the run folder."""
    unshown = {*(() if texts else run.text_files()), run.arrays_path(UNSHOWN),
               *(run.steps_path(model) for model in run.models() if is_retrained(model))}
    kept = {*run.result_files(), run.status_path, *run.text_files()} - unshown
    return [str(file.name) for file in archive.exported(run, weights=False) if run.path / file.name in kept]


def _copy(run: Run, name: str, to: Run) -> int:
    """Bytes of one file as it is recorded."""
    source, target = run.path / name, to.path / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_relative_to(run.data_dir):  # covered by hashes
        shutil.copyfile(source, target)
    elif source.suffix == ".safetensors":
        arrays, about = run.arrays(source.stem)
        to.write_arrays(target.stem, {key: _narrower(key, array) for key, array in arrays.items()}, about)
    else:
        _copy_json(source, target, source in run.long_files())
    return target.stat().st_size


def _copy_json(source: Path, target: Path, is_long: bool) -> None:
    """Rows, or one value, which has lines of its own for whoever looks into it unless it is long."""
    change = rounded if is_long else lambda value: value
    with replacing(target) as file:
        if source.suffix == ".jsonl":
            file.writelines(_compact(change(row)) + "\n" for row in read_rows(source))
            return
        value = {key: one for key, one in (read_json(source) or {}).items() if key not in OF_A_PROCESS}
        value = without_places(change(value))
        file.write(_compact(value) if is_long else json.dumps(value, indent=1, ensure_ascii=False))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _narrower(name: str, array: np.ndarray) -> np.ndarray:
    """The array in the smallest type that holds it well enough."""
    half = array.astype(np.float16) if name in HALF else None
    if half is not None and np.allclose(half, array, rtol=0.01, atol=0.0, equal_nan=True):
        return half
    if array.dtype == np.int64 and np.array_equal(array.astype(np.int32), array):
        return array.astype(np.int32)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def rounded(value: object) -> object:
    """A JSON value with every number that is not whole at `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return {key: rounded(one) for key, one in value.items()} if isinstance(value, dict) else value


def without_places(value: object) -> object:
    """A JSON value in whose texts and keys each path that is absolute or leads out is its last part only."""
    if isinstance(value, str):
        return PurePosixPath(value).name if value.startswith(("/", "../")) else OUTSIDE.sub(r"\1", value)
    if isinstance(value, list):
        return [without_places(one) for one in value]
    if isinstance(value, dict):
        return {without_places(key): without_places(one) for key, one in value.items()}
    return value


def _check_size(run: Run, sizes: dict[str, int]) -> None:
    """InputError that names the largest files where a recording is too large to be kept with the code."""
    if sum(sizes.values()) > MAX_BYTES:
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]
        named = ", ".join(f"{name} {sizes[name] / 1e6:.2f}" for name in largest)
        raise InputError(f"record {run.id}", got=f"{sum(sizes.values()) / 1e6:.1f} MB, most in {named}",
                         expected=f"at most {MAX_BYTES / 1e6:g} MB", fix="record a run on fewer documents, or with "
                         "fewer samples and control models")


# ---- what it says of itself --------------------------------------------------------------------------------------

def _facts(run: Run, texts: bool) -> dict:
    """What `Run.recorded` gives, but for the sizes of the files."""
    documents, parameters = _documents(run), _parameters(run)
    words = ["record", run.id, *([] if texts else ["--without-texts"])]
    left_out = "" if texts else " The texts of its data and of its answers are not part of the recording."
    return {"when": now(), "command": launching.command_line(words), "again": _again(run),
            "scale": _scale(run, documents, parameters) + left_out,
            "sizes": documents | ({"parameters": parameters} if parameters else {}),
            "adapters": run.adapter_keys(), "base": run.base_key()}


def _documents(run: Run) -> dict[str, int]:
    if not run.data_dir.is_dir():
        return {}
    dataset = data.load_saved(run.data_dir)
    return {split: len({item.document for item in getattr(dataset, split)}) for split in ("forget", "retain")}


def _parameters(run: Run) -> int | None:
    """Of the base, by the headers of its weights; None where they are not on this machine."""
    brought, base = run.brought(), run.recipe().base
    place = (brought[shipped(brought)]["model"] if brought else
             base.model if base.source == "load" else str(run.full_model_dir("base")))
    try:
        found = model_size.base_model(dataclasses.replace(base, source="load", model=place))
    except InputError:
        return None
    return None if found is None else found.parameters


def _scale(run: Run, documents: dict[str, int], parameters: int | None) -> str:
    """How large and how real it is, in a sentence."""
    recipe = run.recipe()
    unit, name = (1e6, "million") if parameters and parameters >= 1e6 else (1e3, "thousand")
    size = "a model" if parameters is None else (
        f"a {'small model' if parameters < SMALL else 'model'} of {parameters / unit:,.3g} {name} parameters")
    made = (", trained elsewhere" if run.brought() else "" if recipe.base.source == "load" else
            ", trained from scratch" if recipe.base.source == "scratch" else ", further trained")
    world = "a generated world" if recipe.data.source == "world" else "documents from files"
    counts = f" ({documents['forget']} documents to forget, {documents['retain']} to retain)" if documents else ""
    warning = "" if parameters and parameters >= SMALL else " It shows the mechanism, not the size of any effect."
    return f"{size[0].upper()}{size[1:]}{made}, on {world}{counts}.{warning}"


def _again(run: Run) -> str:
    """The command that makes such a run: a bundled recipe with its changes, else what was typed."""
    recipe = run.recipe()
    if run.brought() or not (recipes.RECIPES / f"{recipe.name}.toml").is_file():
        return shlex.join(["python", "-m", *without_places(run.info().get("command", ["unlearn_core"]))])
    changes = without_places(recipes.as_overrides(recipes.load(recipe.name), recipe))
    return launching.command_line(["run", recipe.name, *(word for change in changes for word in ("--set", change))])
