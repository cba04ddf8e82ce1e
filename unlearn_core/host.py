"""One base model in memory with all adapters of a run on it, switched by name, used by one caller at a time.

Importing this is cheap; torch is loaded with the first model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import CONTROLS, MODELS, SHIPPED, UNLEARNED

if TYPE_CHECKING:
    from unlearn_core.evaluation.generation import Generation
    from unlearn_core.evaluation.sampling import Token

AT_STEP = "@"


@dataclass(frozen=True)
class Loaded:
    """What a host holds: the run's id, the device, names of the models, and the size of their weights in MiB."""

    run: str
    device: str
    models: tuple[str, ...]
    memory_mb: float


def available(run: Run) -> list[str]:
    """Models of a run whose weights can be loaded, in run order; [] for a run that kept none."""
    if brought := run.brought():
        return [name for name in MODELS if name in brought]
    source = run.recipe().base.source
    base = run.full_model_dir("base").is_dir() or (source == "load" and run.model_dir("base").is_dir())
    if not base:
        return []
    there = {"base": True, "untrained": source == "memorise" or run.full_model_dir("untrained").is_dir(),
             "retrained": run.full_model_dir("retrained").is_dir()}
    return [name for name in MODELS if there.get(name, run.adapter_dir(name).is_dir())]


def checkpoints(run: Run) -> list[str]:
    """Adapter checkpoints that can be asked like models, such as "model_1@120" for the one after step 120."""
    steps = [(name, step) for name in UNLEARNED for step, _ in run.checkpoints(name)]
    return [f"{name}{AT_STEP}{step}" for name, step in steps] if available(run) else []


class ModelHost:
    """Answers prompts with any model of one run. Calls wait for each other; another run takes the place of the first.

    Adapters stay unmerged here, so answers may differ from the evaluated ones, which come from merged weights, where
    two tokens are equally likely up to rounding.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forget_all()

    def _forget_all(self) -> None:
        self._key, self._loaded, self._run, self._names = None, None, None, ()
        self._attached = self._plain = self._tokenizer = None
        self._first = ""  # whose weights carry the adapters
        self._adapted: set[str] = set()
        self._beside: dict[str, Any] = {}  # models with weights of their own, once they were asked

    @contextmanager
    def opened(self, run: Run, device: str) -> Iterator[ModelHost]:
        """The host with this run open; no other caller has a turn before the end, so none can open another run."""
        with self._lock:
            self.open(run, device)
            yield self

    def open(self, run: Run, device: str) -> None:
        """Load the run's base and adapters, or of models that it brought the base, else the tested one, unless they are
        loaded already as they are on disk."""
        with self._lock, self._all_or_nothing(device):
            names = available(run)
            if not names:
                raise InputError(f"run {run.id}", got="no weights of a base model in its folder",
                                 expected="a run that has trained or loaded its base",
                                 fix="recorded and imported runs may come without weights; run the recipe again")
            brought, first = run.brought(), next(name for name in ("base", *SHIPPED) if name in names)
            adapters = {name: run.adapter_dir(name) for name in names
                        if name not in ("base", *CONTROLS) and name not in brought}
            folders = [run.full_model_dir("base"), *adapters.values(),  # replaced as a whole when they change
                       *(Path(one["model"]) for one in brought.values())]
            stats = [folder.stat() for folder in folders if folder.is_dir()]
            key = (run.path.resolve(), device, tuple(names), tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats))
            if key == self._key:
                return
            self.unload()
            from unlearn_core import models, run_models
            recipe = run.recipe()
            models.set_threads(recipe.threads)
            base, self._tokenizer = run_models.load(run, recipe, first, device)
            for folder in adapters.values():
                models.check_adapter(base, folder, run_models.base_identity(run, recipe))
            self._attached = models.attach_adapters(base, adapters) if adapters else None
            # The base inside the wrapper is an ordinary model whose layers carry the adapters.
            self._plain = self._attached.get_base_model() if adapters else base
            self._key, self._run, self._names = key, run, tuple(names)
            self._first, self._adapted = first, set(adapters)
            self._describe(device)

    def loaded(self) -> Loaded | None:
        """What is in memory now; does not wait for other callers."""
        return self._loaded

    def models(self) -> list[str]:
        """Names that can be asked: the models of the open run and its checkpoints; [] where none is open."""
        with self._lock:
            return [] if self._run is None else [*self._names, *checkpoints(self._run)]

    def unload(self) -> None:
        """Give all memory back."""
        with self._lock:
            was_loaded = self._key is not None
            self._forget_all()
            if was_loaded:
                import gc

                import torch
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def answer(self, model: str, prompts: list[str], *, max_new_tokens: int = 256, samples: int = 1,
               temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> list[list[Generation]]:
        """Answers to each prompt: one greedy one at temperature 0, else `samples` drawn ones (`sampling.sample`)."""
        from unlearn_core.evaluation import sampling
        from unlearn_core.evaluation.generation import generate
        with self._using(model) as active:
            if temperature == 0:
                written = generate(active, self._tokenizer, prompts, max_new_tokens=max_new_tokens)
                return [[generation] for generation in written]
            return sampling.sample(active, self._tokenizer, prompts, samples=samples, temperature=temperature,
                                   top_p=top_p, seed=seed, max_new_tokens=max_new_tokens)

    def token_log_probs(self, model: str, prompt: str, answer: str) -> list[Token]:
        """See `sampling.token_log_probs`."""
        from unlearn_core.evaluation import sampling
        with self._using(model) as active:
            return sampling.token_log_probs(active, self._tokenizer, prompt, answer)

    @contextmanager
    def _using(self, name: str) -> Iterator:
        """The named model, for this caller alone."""
        with self._lock:
            if name not in self.models():
                got = f"only {', '.join(self._names)}" if self._names else "no model is loaded"
                raise InputError(f"model {name}", got=got, expected="a model that was loaded with its run")
            with self._all_or_nothing(self._loaded.device):
                if name != self._first and name not in self._adapted and AT_STEP not in name:
                    yield self._load_beside(name)
                    return
                if AT_STEP in name:
                    self._attach_checkpoint(name)
                if self._attached is not None and name != self._first:
                    self._attached.set_adapter(name)
                plain_base = name == self._first and self._attached is not None
                with self._attached.disable_adapter() if plain_base else nullcontext():
                    yield self._plain

    def _load_beside(self, name: str):
        """A model with weights of its own, loaded beside the first one when it is first asked for."""
        if name not in self._beside:
            from unlearn_core import run_models
            self._beside[name], _ = run_models.load(self._run, self._run.recipe(), name, self._loaded.device)
            self._describe(self._loaded.device)
        return self._beside[name]

    def _attach_checkpoint(self, name: str) -> None:
        """Put the adapter of a checkpoint beside the others when it is first asked for."""
        if self._attached is not None and name in self._attached.peft_config:
            return
        from unlearn_core import models, run_models
        model, step = name.split(AT_STEP)
        folder = self._run.checkpoint_dir(model, int(step))
        models.check_adapter(self._plain, folder, run_models.base_identity(self._run, self._run.recipe()))
        key, self._key = self._key, None  # if it fails from here on, half an adapter is on the base
        self._attached = models.attach_adapters(self._attached or self._plain, {name: folder})
        self._plain, self._key = self._attached.get_base_model(), key
        self._describe(self._loaded.device)

    def _describe(self, device: str) -> None:
        networks = [self._plain, *self._beside.values()]
        size = sum(p.numel() * p.element_size() for network in networks for p in network.parameters())
        self._loaded = Loaded(self._run.id, device, self._names, size / 2**20)

    @contextmanager
    def _all_or_nothing(self, device: str) -> Iterator[None]:
        """Models that do not fit, or fit only in part, are unloaded; too little memory is an InputError."""
        try:
            yield
        except (InputError, RuntimeError) as error:
            no_memory = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
            if no_memory or self._key is None:
                self.unload()
            if no_memory:
                raise InputError(f"memory of {device}", got="not enough for this model",
                                 expected="room for its weights",
                                 fix="use the CPU, or wait until the jobs on the device are done") from None
            raise
