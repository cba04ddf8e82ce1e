"""Makes a run of somebody's models and lists: checked, named by their hashes, evaluated; see `data.lists`."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from safetensors import safe_open
from transformers.utils import logging as transformers_logging

from unlearn_core import data, models, pipeline
from unlearn_core import recipe as recipes
from unlearn_core.data import Dataset, layout, readers
from unlearn_core.data.lists import read_lists, whole_texts
from unlearn_core.errors import InputError
from unlearn_core.evaluation import mmlu
from unlearn_core.merging.task_vectors import WEIGHTS_FILE
from unlearn_core.progress import Report
from unlearn_core.provenance import surroundings
from unlearn_core.settings import Recipe
from unlearn_core.store import Run, Store

PROMPT_FORM = "raw prompt, no chat template"
# What of the recipe may be set: the rest is given by the models and lists, or belongs to training.
SETTABLE = ("description", "seed", "precision", "threads", "data.allow_overlap", "data.documents_per_task",
            "data.subset_seed", "evaluation.")


@dataclass(frozen=True)
class Models:
    """Folders or hub ids: the tested model, with an adapter if it needs one, and what it is compared with."""

    model: str
    adapter: Path | None = None
    base: str = ""  # has memorised forget; "": the model without the adapter, where there is one
    untrained: str = ""
    retrained: str = ""

    def named(self) -> dict[str, tuple[str, str, Path | None]]:
        """{name of the vocabulary: (command-line option, folder or hub id, adapter)}, the tested model first."""
        base = self.base or (self.model if self.adapter else "")
        found = {"tested": ("--model", self.model, self.adapter), "base": ("--base", base, None),
                 "untrained": ("--untrained", self.untrained, None), "retrained": ("--retrained", self.retrained, None)}
        return {name: given for name, given in found.items() if given[1]}


@dataclass(frozen=True)
class Lists:
    """Files of prompts and answers (see `data.lists.read_lists`), and a folder with MMLU's questions."""

    forget: Sequence[str]
    retain: Sequence[str]
    holdout: Sequence[str] = ()
    mmlu: Path | None = None

    def files(self) -> dict[str, Sequence[str]]:
        """{split: files}."""
        return {"forget": self.forget, "retain": self.retain, "holdout": self.holdout}


def evaluate(brought: Models, lists: Lists, store: Store, *, name: str = "", overrides: Sequence[str] = (),
             device: str = "auto", report: Report = lambda *_: None) -> Run:
    """A finished run of these models and lists, scored as a run's own models are.

    `overrides`: settings as in `--set`, of `SETTABLE`. Bad lists, a model that does not load, an adapter that does not
    fit and a reference of another architecture or tokenizer are InputErrors; no run is then made.
    """
    recipe = _recipe(brought, lists, name, overrides)
    dataset = _dataset(lists, recipe)
    accelerator = pipeline.make_accelerator(device)
    if accelerator.num_processes > 1:
        raise InputError("evaluate --model", got=f"{accelerator.num_processes} processes", expected="one")
    models.set_threads(recipe.threads)
    transformers_logging.disable_progress_bar()
    found = _checked(brought, recipe, dataset)
    run = store.create(recipe, {
        "seed": recipe.seed, "processes": 1, "command": ["unlearn_core", *sys.argv[1:]], "brought": found,
        "lists": _hashes(lists), **surroundings(str(accelerator.device))})
    try:
        data.save(dataset, run.data_dir)
    except BaseException:  # a full disk or a cancellation: no folder that is half a run
        run.discard()
        raise
    return pipeline.carry_out(run, accelerator, report)


def check_unchanged(run: Run) -> None:
    """InputError where a model of the run is no longer the one that was brought: its scores would get a false name."""
    for name, one in run.brought().items():
        now = _weights(one["model"], Path(one["adapter"]) if one["adapter"] else None)
        if any(now[key] != one.get(key) for key in ("sha256", "adapter_sha256")):
            raise InputError(f"{name}: {one['model']}", got="other weights than those that were brought",
                             expected=f"sha256 {one.get('sha256')}", fix="bring it as a run of its own")


# ---- recipe and data -----------------------------------------------------------------------------------------

def _recipe(brought: Models, lists: Lists, name: str, overrides: Sequence[str]) -> Recipe:
    """The defaults. What it names of models and files only says where they come from: the models are those of
    `Run.brought`, and the items are kept in the run.
    """
    base = brought.named().get("base", brought.named()["tested"])[1]
    plain = recipes.parse({"name": name or Path(brought.model).name or "brought", "base": {
        "source": "load", "model": base}, "data": {
        "source": "files", "forget": _joined(lists.forget), "retain": _joined(lists.retain),
        "mmlu": str(lists.mmlu or "")}}, where="evaluate --model")
    changed = recipes.changed(plain, overrides)
    foreign = [key for key, _, _ in recipes.differing(plain, changed) if not key.startswith(SETTABLE)]
    if foreign:
        raise InputError("evaluate --model --set", got=foreign[0],
                         expected=f"one of {', '.join(f'{key}...' if key[-1] == '.' else key for key in SETTABLE)}")
    return changed


def _joined(files: Sequence[str]) -> str:
    return ", ".join(map(str, files))


def _dataset(lists: Lists, recipe: Recipe) -> Dataset:
    """The lists as a run's data; members of the attack are forget's documents, non-members those of holdout."""
    items = read_lists(lists.files())
    dev, test = readers.read_mmlu(layout.find_mmlu(lists.mmlu) or lists.mmlu) if lists.mmlu else ([], [])
    mmlu.choose(test, recipe.evaluation.mmlu_subjects)
    source = f"{recipe.data.forget} and {recipe.data.retain}"
    dataset = data.assemble(items["forget"], items["retain"], [], dev, test, data=recipe.data, seed=recipe.seed,
                            base_is_trained_here=False, mia_members=recipe.evaluation.mia_members, source=source)
    seen = data.overlap(items["holdout"], [*items["forget"], *items["retain"]])
    if seen:
        raise InputError(f"--holdout {_joined(lists.holdout)}",
                         got=f"{len(seen)} items of forget or retain, the first {seen[0][0].id} = {seen[0][1].id}",
                         expected="documents that no model has seen")
    return dataclasses.replace(dataset, holdout=items["holdout"], attack=data.attack_documents(
        whole_texts(dataset.forget), whole_texts(items["holdout"]), recipe.evaluation.mia_members))


def _hashes(lists: Lists) -> dict[str, dict[str, str]]:
    """{split: {file as given: SHA-256}}."""
    return {split: {str(path): hashlib.sha256(layout.local(path).read_bytes()).hexdigest() for path in files}
            for split, files in lists.files().items()}


# ---- models --------------------------------------------------------------------------------------------------

def _checked(brought: Models, recipe: Recipe, dataset: Dataset) -> dict[str, dict]:
    """What `Run.brought` gives about each model, after it was loaded once and compared with the tested one."""
    prompts = [item.prompt for item in dataset.forget]
    found: dict[str, dict] = {}
    traits: dict[str, dict] = {}
    for name, (option, path, adapter) in brought.named().items():
        model, tokenizer = models.load_model(path, recipe.precision)
        traits[name] = _traits(model, tokenizer, prompts)
        _compare(f"{option} {path}", traits[name], traits["tested"])
        if adapter:
            models.with_adapter(model, adapter)
        place = str(Path(path).resolve()) if Path(path).is_dir() else path
        found[name] = {"model": place, "adapter": str(adapter.resolve()) if adapter else None,
                       **_weights(path, adapter), "precision": recipe.precision, "prompt": PROMPT_FORM,
                       "decoding": f"greedy, at most {recipe.evaluation.max_new_tokens} new tokens"}
    return found


def _traits(model, tokenizer, prompts: Sequence[str]) -> dict:
    """What must be the same in all models of a run: losses and layers can be compared only then."""
    config = model.config.get_text_config()
    return {"architecture": type(model).__name__, "layers": getattr(config, "num_hidden_layers", None),
            "width": getattr(config, "hidden_size", None), "vocabulary": getattr(config, "vocab_size", None),
            "tokens": tokenizer.get_vocab(), "prompts": tokenizer(list(prompts)).input_ids}


def _compare(what: str, own: dict, tested: dict) -> None:
    """InputError that says in what a model differs from the tested one."""
    named = [key for key in ("architecture", "layers", "width", "vocabulary") if own[key] != tested[key]]
    expected = "a model of the same architecture and tokenizer as --model"
    if named:
        got, wanted = (", ".join(f"{key} {traits[key]}" for key in named) for traits in (own, tested))
        raise InputError(what, got=got, expected=f"{expected}: {wanted}")
    differing = own["tokens"].items() ^ tested["tokens"].items()
    if differing:
        raise InputError(what, got=f"a tokenizer that differs in {len({token for token, _ in differing})} tokens, such "
                         f"as {min(token for token, _ in differing)!r}", expected=expected)
    if own["prompts"] != tested["prompts"]:
        raise InputError(what, got="a tokenizer that reads the prompts of forget otherwise", expected=expected)


def _weights(path: str, adapter: Path | None) -> dict[str, str | None]:
    """sha256 over a model's weights, as `Run.base_key` has it, and of an adapter's; dtypes as stored."""
    digest, kinds = hashlib.sha256(), set()
    for file in sorted(_folder(path).glob("*.safetensors")):
        digest.update(bytes.fromhex(_sha256(file)))
        with safe_open(file, "numpy") as tensors:
            kinds.update(tensors.get_slice(key).get_dtype() for key in tensors.keys())  # noqa: SIM118
    return {"sha256": digest.hexdigest(), "dtype": ", ".join(sorted(kinds)),
            "adapter_sha256": _sha256(adapter / WEIGHTS_FILE) if adapter else None}


def _folder(path: str) -> Path:
    """Where the files of a model lie that was loaded before: its folder, or its copy in the hub's cache."""
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(huggingface_hub.snapshot_download(path, local_files_only=True))
    except (OSError, ValueError):  # no such id, or nothing in the cache
        raise InputError("model", got=path,
                         expected="a folder, or a hub id whose files are in the hub's cache") from None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}", got=error.strerror or str(error), expected="weights in safetensors") from None
