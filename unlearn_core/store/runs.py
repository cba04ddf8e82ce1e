"""All runs of a folder, the examples beside them, and what sweeps and the dashboard keep there. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from unlearn_core.errors import InputError
from unlearn_core.files import damaged, read_json, replacing, unreadable, write_json
from unlearn_core.settings import Recipe
from unlearn_core.store.checks import SAFE_NAME, is_configuration, is_count, safe
from unlearn_core.store.run import Run

DEFAULT_RUNS_DIR = "runs"
RUN_FILES = {"run.json", "recipe.json", "status.json"}  # a folder with none of them is no run


class Store:
    """A folder of runs and, read only, a second one of recordings, the examples."""

    def __init__(self, root: str | Path = DEFAULT_RUNS_DIR, examples: str | Path | None = None):
        self.root = Path(root)
        self.examples = None if examples is None else Path(examples)
        self._roots = [self.root, *(() if self.examples is None else (self.examples,))]

    def scan(self) -> tuple[list[Run], list[str]]:
        """Readable runs, newest first, then the examples by name; and one line for each folder that looks like a run
        and cannot be read."""
        dated, problems = [], []
        for run in self.folders():
            try:
                if RUN_FILES.isdisjoint(os.listdir(run.path)):
                    continue
                run.recipe()
                dated.append((run.info()["created"], run.id, run))
            except InputError as error:
                problems.append(f"{run.id}: {error}")
            except OSError as error:
                problems.append(f"{run.id}: {unreadable(run.path, error)}")
        examples = [run for _, _, run in dated if self.is_example(run)]
        dated.sort(key=lambda entry: entry[:2], reverse=True)
        return [run for _, _, run in dated if not self.is_example(run)] + examples, problems

    def is_example(self, run: Run) -> bool:
        return run.path.parent == self.examples

    def runs(self) -> list[Run]:
        """Readable runs in the order of `scan`."""
        return self.scan()[0]

    def problems(self) -> list[str]:
        """One line for each folder that looks like a run and cannot be read; see `scan`."""
        return self.scan()[1]

    def folders(self) -> list[Run]:
        """Every folder that is not hidden, by name, whether it is a readable run or not; an example has no name of an
        own run."""
        found: dict[str, Path] = {}
        for root in self._roots:
            for path in _folders(root):
                found.setdefault(path.name, path)
        return [Run(path) for path in found.values()]

    def open(self, name_or_path: str) -> Run:
        """A run by id (inside this store, the examples last) or by the path of its folder."""
        named = [root / name_or_path for root in self._roots] if SAFE_NAME.fullmatch(name_or_path) else []
        path = next(filter(Path.is_dir, named), Path(name_or_path))
        if not path.is_dir():
            raise InputError("run", got=name_or_path, expected=f"the id of a run in {self.root} or a run folder",
                             fix="list the runs with: python -m unlearn_core list")
        run = Run(path)
        run.info()
        return run

    def create(self, recipe: Recipe, info: dict, state: str = "running") -> Run:
        """A new run folder in this store, see `Run.create`."""
        self._make_root()
        return Run.create(self.root, recipe, info, state)

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"runs folder {self.root}", got=error.strerror or str(error),
                             expected="a folder that can be written",
                             fix="choose another one with --runs-dir") from None

    # sweeps

    def sweeps(self) -> list[str]:
        """Names of the sweeps, sorted."""
        return sorted(path.stem for path in (self.root / ".sweeps").glob("[!.]*.json"))

    def sweep(self, name: str) -> dict:
        """What a sweep plans, {} where there is none of that name.

        Keys: recipe (its name or path), seeds, and configurations, each with name, point ({setting: value as it was
        typed}) and recipe (as `recipes.as_dict`, with seed 0).
        """
        path = self._sweep_path(name)
        found = read_json(path) or {}
        if found and not (isinstance(found.get("recipe"), str) and isinstance(found.get("seeds"), list)
                          and all(map(is_count, found["seeds"])) and isinstance(found.get("configurations"), list)
                          and all(map(is_configuration, found["configurations"]))):
            raise damaged(path, json.dumps(found)[:100])
        return found

    def change_sweep(self, name: str, change: Callable[[dict], dict]) -> None:
        """Replace what `sweep` gives by what `change` makes of it; of two processes one waits for the other."""
        path = self._sweep_path(name)
        self._make_root()
        path.parent.mkdir(exist_ok=True)
        with filelock.FileLock(path.with_name(f".{name}.lock")):
            write_json(path, change(self.sweep(name)))

    @contextmanager
    def sweep_claimed(self, name: str, seed: int) -> Iterator[bool]:
        """Whether nobody else works on a seed of a sweep inside; a dead process claims nothing."""
        lock = filelock.FileLock(self._sweep_path(name).with_name(f".{name}.seed-{seed}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _sweep_path(self, name: str) -> Path:
        return self.root / ".sweeps" / f"{safe(name, 'name of a sweep')}.json"

    # what the dashboard makes: data sets and recipes

    def datasets(self) -> list[str]:
        """Names of the data sets made in the dashboard, sorted."""
        folder = self.root / ".data"
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and SAFE_NAME.fullmatch(p.name)
                      ) if folder.is_dir() else []

    def dataset_dir(self, name: str) -> Path:
        """Folder of a data set made in the dashboard, in LUME's layout; it need not exist."""
        return self.root / ".data" / safe(name, "name of a data set")

    def saved_recipes(self) -> list[Path]:
        """Recipes saved in the dashboard, sorted by name."""
        return sorted((self.root / ".recipes").glob("[!.]*.toml"))

    def save_recipe(self, name: str, text: str) -> Path:
        """Write a recipe's TOML under a name; an older one of that name is replaced."""
        path = self.root / ".recipes" / f"{safe(name, 'name of a recipe')}.toml"
        with replacing(path) as file:
            file.write(text)
        return path


def _folders(root: Path) -> list[Path]:
    """Folders in `root` that are not hidden, by name."""
    found = os.scandir(root) if root.is_dir() else ()
    return [root / name for name in sorted(e.name for e in found if e.is_dir() and e.name[0] != ".")]
