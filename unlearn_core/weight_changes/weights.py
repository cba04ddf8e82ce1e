"""What is measured on the weights of a run: its adapters and checkpoints in, the arrays of `geometry` out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import Adapter, check_compatible, load_adapter
from unlearn_core.store import Run
from unlearn_core.vocabulary import SPACES, UNLEARNED
from unlearn_core.weight_changes import geometry, signs

SCHEMA = 1
MOST_ENTRIES = 2e9  # of all delta W together: above, the entry-wise statistics are left out unless asked for
Progress = Callable[[str, int, int], None]


def is_current(run: Run) -> bool:
    """Whether the stored statistics are those of the adapters that the run has now."""
    try:
        about = run.arrays("weights")[1]
    except InputError:  # damaged: it is to be measured again
        return False
    return about.get("schema") == SCHEMA and about.get("key") == run.adapter_keys()


def measure(run: Run, base: str, *, device: str = "cpu", entries: bool | None = None,
            progress: Progress = lambda *_: None) -> None:
    """Write the arrays "weights": `geometry.statistics` of the adapters that the run has, and for model_1 and model_2
    `geometry.split_products` of their checkpoints as "checkpoints/<model>/<delta or factors>".

    `base`: folder or hub id of the base. `entries`: whether the entry-wise statistics are made; None: unless they are
    too many. What the arrays are about: schema, key ({adapter: sha256 of its weights}), adapters and modules (names of
    the axes), shapes ((out, in) of each module), ranks ({adapter: r}), steps ({model: of its checkpoints}), entries.
    """
    keys = run.adapter_keys()
    if not keys:
        raise InputError(f"run {run.id}", got="no adapters", expected="the adapter of model_1, model_2 or merged",
                         fix="a recorded run comes without weights; go on with an unfinished one")
    adapters = {name: load_adapter(run.adapter_dir(name)) for name in keys}
    check_compatible(list(adapters.values()))
    modules = next(iter(adapters.values())).modules
    shapes = [(factors.B.shape[0], factors.A.shape[1]) for factors in modules.values()]
    if entries is None:
        entries = len(adapters) * sum(rows * columns for rows, columns in shapes) <= MOST_ENTRIES
    arrays = geometry.statistics(adapters, base_norms(base, list(modules)), entries=entries, device=device,
                                 progress=lambda done, total: progress("weights", done, total))
    steps = {}
    for name in set(adapters) & set(UNLEARNED):
        taken, products = _during_training(run, name, adapters[name], progress)
        arrays |= {f"checkpoints/{name}/{level}": array for level, array in products.items()}
        steps |= {name: taken} if taken else {}
    run.write_arrays("weights", arrays, {
        "schema": SCHEMA, "key": keys, "adapters": list(adapters), "modules": list(modules), "shapes": shapes,
        "ranks": {name: adapter.rank for name, adapter in adapters.items()},
        "steps": {name: steps[name] for name in UNLEARNED if name in steps}, "entries": entries})


def signs_are_current(run: Run) -> bool:
    """Whether the stored sign statistics are those of the adapters that model_1 and model_2 have, or one has none."""
    keys = _parents(run)
    try:
        about = run.arrays("signs")[1]
    except InputError:
        return False
    return len(keys) < len(UNLEARNED) or (about.get("schema"), about.get("key")) == (signs.SCHEMA, keys)


def measure_signs(run: Run, *, device: str = "cpu", entries: bool | None = None,
                  progress: Progress = lambda *_: None) -> None:
    """Write the arrays "signs", `signs.statistics` of model_1 and model_2, where the run has both.

    `entries`: whether delta W is among the spaces; None: unless it has too many entries. What the arrays are about
    has also key, {adapter: sha256 of its weights}.
    """
    keys = _parents(run)
    if len(keys) < len(UNLEARNED):
        return
    first, second = (load_adapter(run.adapter_dir(name)) for name in UNLEARNED)
    if entries is None:
        entries = 2 * sum(f.B.shape[0] * f.A.shape[1] for f in first.modules.values()) <= MOST_ENTRIES
    arrays, about = signs.statistics(
        first, second, spaces=SPACES if entries else [space for space in SPACES if space != "dW"],
        excerpt_density=run.recipe().merge.density, device=device,
        progress=lambda done, total: progress("weights: signs", done, total))
    if not entries:
        about["left_out"]["dW"] = f"more than {MOST_ENTRIES:.0e} entries: measure with --entries to have it"
    run.write_arrays("signs", arrays, about | {"key": keys})


def _parents(run: Run) -> dict[str, str]:
    keys = run.adapter_keys()
    return {name: keys[name] for name in UNLEARNED if name in keys}


def _during_training(run: Run, name: str, end: Adapter, progress: Progress) -> tuple[list[int], dict]:
    """(steps, products) of a model's checkpoints; both empty where its beginning was not kept, or nothing after it."""
    places = run.checkpoints(name)
    if len(places) < 2 or places[0][0] != 0:
        return [], {}
    start = load_adapter(places[0][1])
    points = (load_adapter(folder) for _, folder in places)
    check_compatible([start, end])
    products = geometry.split_products(
        start, points, end, lambda done, _: progress(f"weights: checkpoints of {name}", done, len(places)))
    return [step for step, _ in places], products


# ---- the base ------------------------------------------------------------------------------------------------

def base_norms(base: str, modules: Sequence[str]) -> dict[str, float]:
    """||W||_F of the base's weight of each module, read one tensor at a time and summed in float64.

    A module is absent where it cannot be told: the base is a hub id that is not on this machine, its files are not
    safetensors, or the weight is quantised or of another name.
    """
    folder, norms = _local(base), {}
    if folder is None:
        return norms
    files = sorted(folder.glob("*.safetensors"))
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
            found = {key: file for file in opened for key in list(file.keys())}
            for name in modules:
                key = _key(name, found, folder)
                weight = found[key].get_tensor(key) if key else None
                if weight is not None and weight.is_floating_point() and weight.dim() == 2:
                    norms[name] = _norm(weight)
        except (OSError, SafetensorError) as error:
            raise InputError(f"base {folder}", got=f"a damaged file ({error})",
                             expected="weights (safetensors)") from None
    return norms


def _local(base: str) -> Path | None:
    """The folder of a base, for a hub id its place in the local cache; nothing is downloaded."""
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(base, local_files_only=True))
    except (OSError, ValueError):  # not there; not a hub id
        return None


def _key(module: str, found: dict, folder: Path) -> str | None:
    """Name of a module's weight in the files; a tied output layer has that of the embedding."""
    key = f"{module}.weight"
    if key not in found and module == "lm_head" and _is_tied(folder):
        key = "model.embed_tokens.weight"
    return key if key in found else None


def _is_tied(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings"))
    except (OSError, ValueError, AttributeError):
        return False


def _norm(weight: torch.Tensor) -> float:
    """Frobenius norm, in float64 a few rows at a time."""
    pieces = weight.split(max(1, 2**22 // weight.shape[1]))
    return math.sqrt(sum(piece.double().square().sum().item() for piece in pieces))
