"""Runs on the disk: the only part that knows the names inside a run folder. Torch-free.

    runs/<run_id>/
      run.json        schema version, id, created, command, commit, package versions, device, seed, data hashes
      recipe.json     the recipe exactly as run
      status.json     state, stage, step, total, process: replaced atomically
      data/           the data as used: forget, retain, holdout, general and attack.jsonl, quiz/ in MMLU's CSV form
      models/<name>/  steps.jsonl, adapter/, checkpoints/step-N/, resume/, model/ (full weights where trained here),
                      answers.jsonl, documents.jsonl, mmlu.jsonl, memory.jsonl, knowledge.jsonl,
                      scores.json (last file of its evaluation), samples.jsonl (drawn later, its first line about them)
      scores.json     {model: {metric: number}}      intervals.json  {model: {metric: [low, high]}}
      trajectory.json scores of the adapter checkpoints: {documents_per_task, seed, ..., rows}
      merges.json, ablations.json   scores of other merges of the adapters, and of the merge without a part of it
      balance.json    what was chosen on one half of the documents and read on the other; balance.safetensors: its items
      probes/<name>.json      what a model does under an attack or a change, beside its controls (see `probe`)
      readings.json   each look at the locked half of the documents      gates.json  thresholds of the verdict
      weights.safetensors, signs.safetensors   statistics of the weight changes (see `geometry`, `signs`)
      shadows.safetensors   what models trained for the attack of `shadows` say of each document
      job.json        the detached process that works on the run, or the last one that did (see `jobs`)
      log.txt         messages of the process
      meta.json       title, tags, archived: the one file that the interface writes
    runs/.data/<name>/      data sets made in the dashboard        runs/.recipes/<name>.toml   saved recipes
    runs/.sweeps/<name>.json   what a sweep plans (see `sweeps`); its runs say in run.json that they belong to it

Logs are append-only JSON lines and a reader skips a last line without a newline; small files are written beside
their place and moved over it, so a crash or a full disk leaves the old state. A recording (see `recorded`) is a run
folder without weights and log that says so in run.json; nothing changes it.
"""

from unlearn_core.store.checks import MAX_STEM, STATES
from unlearn_core.store.folder import now
from unlearn_core.store.run import Run
from unlearn_core.store.runs import DEFAULT_RUNS_DIR, RUN_FILES, Store

__all__ = ["DEFAULT_RUNS_DIR", "MAX_STEM", "RUN_FILES", "STATES", "Run", "Store", "now"]
