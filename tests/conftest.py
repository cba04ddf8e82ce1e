"""Runs of the whole session, to read, and copies of them to damage: a real one, and one with a clean verdict."""

import os
import shutil
from pathlib import Path

import pytest

from unlearn_core import recipe as recipes
from unlearn_core.store import Run, Store

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LETHE_EXAMPLES"] = ""  # pages show the runs of a test and no examples


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Run:
    """A finished run, weights and checkpoints included; it is shared, so tests only read it."""
    from unlearn_core import pipeline  # torch is loaded by the tests that need a run, not by all
    return pipeline.start(recipes.load("smoke"), Store(tmp_path_factory.mktemp("smoke")), device="cpu")


@pytest.fixture
def smoke_store(smoke_run, tmp_path) -> Store:
    """A store with one run in it: a private copy of the finished one."""
    shutil.copytree(smoke_run.path, tmp_path / "runs" / smoke_run.id)
    return Store(tmp_path / "runs")


@pytest.fixture
def smoke_copy(smoke_store) -> Run:
    """The run of `smoke_store`, to change or damage."""
    return smoke_store.runs()[0]


@pytest.fixture(scope="session")
def gold(tmp_path_factory) -> Run:
    """A run whose merge does and says exactly what the retrained control does, everything measured but its parents."""
    from tests import example_verdict
    return example_verdict.measured(tmp_path_factory.mktemp("gold"))


@pytest.fixture
def gold_copy(gold, tmp_path) -> Run:
    """The gold run, to change."""
    return Run(shutil.copytree(gold.path, tmp_path / gold.id))


@pytest.fixture
def recorded_run(tmp_path) -> Run:
    """A private copy of the recorded run of schema version 1, which has no weights and no checkpoints."""
    return Run(shutil.copytree(Path(__file__).parent / "fixtures" / "run-v1", tmp_path / "recorded" / "run-v1"))
