"""One run folder: what it says of itself, and where everything in it lies. Torch-free."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import damaged, read_json, unreadable, write_json
from unlearn_core.settings import Recipe
from unlearn_core.store.checks import META_CHECKS, holds_all, is_number, is_time, safe
from unlearn_core.vocabulary import MODELS, is_retrained

SCHEMA_VERSION = 1
_NO_META = {"title": "", "tags": [], "archived": False}


class Folder:
    """A run folder. Reading never changes it."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._recipe: Recipe | None = None

    @property
    def id(self) -> str:
        return self.path.name

    # identity

    def info(self) -> dict:
        """`run.json`; an InputError where it is missing or of a newer schema."""
        info = read_json(self.path / "run.json")
        if info is None:
            raise InputError(f"run {self.path}", got="no run.json", expected="a run folder made by Lethe",
                             fix="list the runs with: python -m unlearn_core list")
        if info.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"run {self.id}", got=f"schema version {info.get('schema_version')}",
                             expected=f"version {SCHEMA_VERSION}",
                             fix="open it with the version of Lethe that wrote it")
        if not is_time(info.get("created")):
            raise damaged(self.path / "run.json", f"created = {info.get('created')!r}")
        return info

    def recipe(self) -> Recipe:
        """The frozen recipe of the run."""
        if self._recipe is None:
            raw = read_json(self.path / "recipe.json")
            if raw is None:
                raise InputError(f"run {self.id}", got="no recipe.json", expected="the recipe that was run",
                                 fix="the folder is incomplete: restore it or remove it")
            self._recipe = recipes.parse(raw, where=f"{self.id}/recipe.json")
        return self._recipe

    def change_recipe(self, recipe: Recipe) -> None:
        """Replace the recipe of a run that goes on with settings which do not change its results."""
        write_json(self.path / "recipe.json", recipes.as_dict(recipe))
        self._recipe = recipe

    def meta(self) -> dict:
        """What a person gave the run: title (str), tags (list of str), archived (bool)."""
        meta = _NO_META | (read_json(self.path / "meta.json") or {})
        for key, holds in META_CHECKS.items():
            if not holds(meta[key]):
                raise damaged(self.path / "meta.json", f"{key} = {meta[key]!r}")
        return meta

    def write_meta(self, **changes: str | list[str] | bool) -> None:
        """Change some of what `meta` gives."""
        self.refuse_if_recorded()
        write_json(self.path / "meta.json", self.meta() | changes)

    def note(self, **facts) -> None:
        """Add facts to `run.json`."""
        self.refuse_if_recorded()
        write_json(self.path / "run.json", {**(read_json(self.path / "run.json") or {}), **facts})

    def recorded(self) -> dict:
        """What a recording says of itself (see `recorded.record`), {} for any other run.

        Keys: when (time), command (that recorded it), again (the command that makes a run like it), scale (a sentence),
        sizes ({what: number}), and adapters ({model: sha256}) and base (sha256 or None) of the weights that it had.
        """
        found = (read_json(self.path / "run.json") or {}).get("recorded") or {}
        if found and not (isinstance(found, dict) and is_time(found.get("when"))
                          and all(isinstance(found.get(key), str) for key in ("command", "again", "scale"))
                          and holds_all(found.get("sizes"), is_number)
                          and holds_all(found.get("adapters"), lambda value: isinstance(value, str))
                          and isinstance(found.get("base"), str | None)):
            raise damaged(self.path / "run.json", f"recorded = {found!r}")
        return found

    def refuse_if_recorded(self) -> None:
        """InputError for a recording; whatever changes or measures a run calls this first."""
        if recorded := self.recorded():
            raise InputError(f"run {self.id}", got="a recording, which has no weights and stays as it is",
                             expected="a run that was made here", fix=f"make one with: {recorded['again']}")

    def brought(self) -> dict[str, dict]:
        """{model: {"model": folder or hub id, "adapter": folder or None, ...}} of models that were brought for
        evaluation; {} for a run that makes its own."""
        found = self.info().get("brought") or {}
        if not (isinstance(found, dict) and all(
                isinstance(one, dict) and isinstance(one.get("model"), str)
                and isinstance(one.get("adapter"), str | None) for one in found.values())):
            raise damaged(self.path / "run.json", f"brought = {found!r}")
        return found

    def sweep(self) -> tuple[str, str]:
        """(name, configuration) of the sweep that the run belongs to (see `Store.sweep`); ("", "") for any other."""
        found = self.info().get("sweep") or {"name": "", "configuration": ""}
        if not (holds_all(found, lambda value: isinstance(value, str))
                and {"name", "configuration"} <= set(found)):
            raise damaged(self.path / "run.json", f"sweep = {found!r}")
        return found["name"], found["configuration"]

    def identity_files(self) -> list[Path]:
        """Files whose change may change what `Store.scan` says about the folder."""
        return [self.path / "run.json", self.path / "recipe.json"]

    # weights

    def models(self) -> list[str]:
        """Names of the models that have a folder, known ones first and in order, further seeds beside the first."""
        folder = self.path / "models"
        try:
            names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        except OSError as error:
            raise unreadable(folder, error) from None
        kinds = {name: "retrained" if is_retrained(name) else name for name in names}
        return sorted(names, key=lambda name: MODELS.index(kinds[name]) if kinds[name] in MODELS else len(MODELS))

    def adapter_weights(self) -> dict[str, Path]:
        """The file of LoRA weights of each model that has an adapter."""
        files = {model: self.adapter_dir(model) / "adapter_model.safetensors" for model in self.models()}
        return {model: path for model, path in files.items() if path.is_file()}

    def adapter_keys(self) -> dict[str, str]:
        """sha256 of the LoRA weights of each model that has an adapter, or had one when it was recorded: what was
        measured belongs to these."""
        keys = dict(self.recorded().get("adapters", {}))
        for model, path in self.adapter_weights().items():
            with path.open("rb") as file:
                keys[model] = hashlib.file_digest(file, "sha256").hexdigest()
        return keys

    def base_key(self) -> str | None:
        """sha256 over the weights of the base that this run has, or had when it was recorded; None where it has none.
        """
        digest, files = hashlib.sha256(), sorted(self.full_model_dir("base").glob("*.safetensors"))
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest() if files else self.recorded().get("base")

    # places

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    @property
    def status_path(self) -> Path:
        return self.path / "status.json"

    @property
    def data_dir(self) -> Path:
        return self.path / "data"

    def model_dir(self, model: str) -> Path:
        return self.path / "models" / model

    def full_model_dir(self, model: str) -> Path:
        """Full weights in Hugging Face's layout, where this run trained them."""
        return self.model_dir(model) / "model"

    def adapter_dir(self, model: str) -> Path:
        """The LoRA adapter in PEFT's layout."""
        return self.model_dir(model) / "adapter"

    def initial_adapter_dir(self, model: str) -> Path:
        """The adapter of another run that this model's training started from, where it did."""
        return self.model_dir(model) / "initial"

    def resume_dir(self, model: str) -> Path:
        """Optimizer and random state of an unfinished training."""
        return self.model_dir(model) / "resume"

    def checkpoint_dir(self, model: str, step: int) -> Path:
        return self.model_dir(model) / "checkpoints" / f"step-{step:06d}"

    def checkpoints(self, model: str) -> list[tuple[int, Path]]:
        """(optimizer step, adapter folder) of each checkpoint, in order."""
        found = (self.model_dir(model) / "checkpoints").glob("step-*")
        return sorted((int(path.name.removeprefix("step-")), path) for path in found)

    def steps_path(self, model: str) -> Path:
        """The file behind `steps`, to which a running training appends whole lines."""
        return self.model_dir(model) / "steps.jsonl"

    def _probe_path(self, name: str) -> Path:
        return self.path / "probes" / f"{safe(name, 'name of a probe')}.json"

    def arrays_path(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


def now() -> str:
    """Current time, UTC, to the microsecond, so that runs started in one second keep their order."""
    return datetime.now(UTC).isoformat()
