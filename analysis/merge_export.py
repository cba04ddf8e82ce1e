"""One merge, said to three programs: our command line, PEFT's `add_weighted_adapter`, and mergekit's YAML."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from unlearn_core.errors import InputError
from unlearn_core.jobs import CODE
from unlearn_core.settings import Merge
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

MOST_BYTES = 200 * 2**20  # of what is offered for download
TRIMMING, DROPPING = ("ties", "magnitude_prune"), ("dare_ties", "dare_linear")
ELECTING = ("ties", "dare_ties")
SUMS = ("linear", "cat")  # the weighted sum of the updates, on delta W


@dataclass(frozen=True)
class Equivalent:
    """`text` for the other program; "" where it cannot do this merge. `note`: why, or what differs all the same."""

    text: str
    note: str = ""


def command(choice: Merge, adapters: list[str], out: str, base: str = "", full_model: str = "") -> list[str]:
    """Arguments of `python -m unlearn_core`; `base` and `full_model` (both or neither): also write a full model.

    Method, level, density and weights are always named, the other settings where they are not the usual ones.
    """
    named = ["method", "level", "density"]
    named += [field.name for field in fields(Merge) if field.name not in (*named, "weights")
              and getattr(choice, field.name) != field.default]
    settings = [part for name in named for part in (f"--{name.replace('_', '-')}", _text(getattr(choice, name)))]
    full = ["--base", base, "--full-model", full_model] if full_model else []
    return ["merge", "--adapters", *adapters, *settings, "--weights", *map(_text, choice.weights), "--out", out, *full]


def _text(value: str | float) -> str:
    # Without an exponent, since argparse takes -1e-05 for an option.
    return value if isinstance(value, str) else np.format_float_positional(value, trim="-")


# ---- PEFT ------------------------------------------------------------------------------------------------------

def peft_code(choice: Merge, base: str, adapters: list[str], out: str) -> Equivalent:
    """Python that makes the same merge with PEFT 0.21; it stands in the subfolder "merged" of `out`."""
    choice = _explicit(choice)
    if reason := _not_in_peft(choice):
        return Equivalent("", reason)
    on_deltas = choice.level == "delta" or choice.method == "cat"
    weights = [float(weight) for weight in (_weights_of_sum(choice) if on_deltas and choice.method in SUMS
                                            else choice.weights)]
    if on_deltas and choice.method in SUMS:
        kind = "svd" if choice.rank else "cat"
    else:
        kind = f"{choice.method}_svd" if on_deltas else choice.method
    density = f", density={choice.density!r}" if choice.method in (*TRIMMING, *DROPPING) else ""
    rank = f", svd_rank={choice.rank}" if choice.rank else ""
    one, two = UNLEARNED
    text = f"""from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base!r})
model = PeftModel.from_pretrained(model, {adapters[0]!r}, adapter_name="{one}")
model.load_adapter({adapters[1]!r}, adapter_name="{two}")
model.add_weighted_adapter(
    adapters=["{one}", "{two}"], weights={weights!r}, adapter_name="merged",
    combination_type="{kind}"{density}{rank})
model.save_pretrained({out!r}, selected_adapters=["merged"])
"""
    notes = ["PEFT draws other random entries, so that the result is alike and not the same."
             ] if choice.method in DROPPING else []
    notes += ["PEFT up to 0.20 applies the scaling twice in this type."] if kind.endswith("svd") else []
    return Equivalent(text, " ".join(notes))


def _not_in_peft(choice: Merge) -> str:
    if choice.method == "negmerge":
        return "PEFT has no NegMerge."
    if choice.trim_scope == "global":
        return "PEFT trims each matrix by itself, not the adapter as a whole."
    if choice.rescale != ("density" if choice.method in DROPPING else "none"):
        return "PEFT does not rescale pruned adapters like that."
    on_sums = choice.method in SUMS and (choice.level == "delta" or choice.method == "cat")
    if choice.elect == "after":
        return "PEFT compares signs before weighting."
    if not on_sums and choice.divisor != ("count" if choice.method in ELECTING else "none"):
        return "PEFT divides TIES by the number of contributors, and the others by nothing."
    if choice.level == "delta" and choice.method not in SUMS and not choice.rank:
        return ("PEFT merges weight changes only into a LoRA of a lower rank (svd_rank), never exactly: set a rank to "
                "have its code.")
    return ""


# ---- mergekit --------------------------------------------------------------------------------------------------

def mergekit_yaml(choice: Merge, base: str, adapters: list[str]) -> Equivalent:
    """A configuration for `mergekit-yaml FILE OUT`, which writes a full model. All paths are absolute or hub ids."""
    choice = _explicit(choice)
    if reason := _not_in_mergekit(choice, base, adapters):
        return Equivalent("", reason)
    name = {"linear": "task_arithmetic", "cat": "task_arithmetic"}.get(choice.method, choice.method)
    weights = _weights_of_sum(choice) if choice.method in (*SUMS, "dare_linear") else choice.weights
    pruned = choice.method in (*TRIMMING, *DROPPING)
    normalize = choice.method in ELECTING and choice.divisor != "none"
    lines = [f"merge_method: {name}", f"base_model: {_quoted(base)}", "models:"]
    for adapter, weight in zip(adapters, weights, strict=True):
        lines += [f"  - model: {_quoted(f'{base}+{adapter}')}", "    parameters:", f"      weight: {float(weight)!r}"]
        lines += [f"      density: {choice.density!r}"] if pruned else []
    lines += ["parameters:", f"  normalize: {str(normalize).lower()}"]
    lines += [f"  rescale: {str(choice.rescale == 'l1').lower()}"] if pruned else []
    lines += ["dtype: float32", ""]
    note = "It writes a full model, not an adapter."
    if choice.method in DROPPING:
        note += " mergekit draws other random entries, so that the result is alike and not the same."
    return Equivalent("\n".join(lines), note)


def _not_in_mergekit(choice: Merge, base: str, adapters: list[str]) -> str:
    if choice.level == "factors" and choice.method != "cat":
        return "mergekit merges weight changes, not the factors A and B."
    if choice.rank:
        return "mergekit does not compress a merge to a rank."
    if choice.method == "negmerge":
        return "mergekit has no NegMerge."
    if choice.method == "magnitude_prune":
        return "mergekit prunes by magnitude only where it elects signs, too (TIES)."
    if choice.trim_scope == "global":
        return "mergekit trims each matrix by itself, not the adapter as a whole."
    if choice.rescale == "density":
        return "mergekit rescales to the L1 norm of an adapter, or not at all; it does not divide by the density."
    if choice.method in ELECTING and choice.elect == "before" and not _alike(choice):
        return "mergekit compares signs after weighting: take elect = after, or equal weights."
    if choice.method in ELECTING and choice.divisor == "count" and set(choice.weights) != {1.0}:
        return "mergekit divides by the sum of the weights, not by their number: take divisor = weights, or weights 1."
    if any(sign in path for path in (base, *adapters) for sign in "+@"):
        return "mergekit gives + and @ in a path a meaning of their own: rename the folder."
    return ""


def _quoted(text: str) -> str:
    """Text in YAML's double quotes, everything but plain printable characters escaped."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


# ---- one meaning -----------------------------------------------------------------------------------------------

def _explicit(choice: Merge) -> Merge:
    """The same merge with what is "usual" spelled out, and what has no effect as PEFT has it."""
    method = choice.method
    prunes = method in (*TRIMMING, *DROPPING) and choice.density < 1
    usual = {"divisor": "count" if method in (*ELECTING, "negmerge") else "none",
             "rescale": "density" if method in DROPPING else "none"}
    choice = replace(choice, **{name: value for name, value in usual.items() if getattr(choice, name) == "usual"})
    if not (prunes and method in TRIMMING):
        choice = replace(choice, trim_scope="matrix")
    if not prunes:
        choice = replace(choice, rescale=usual["rescale"])
    if method not in (*ELECTING, "negmerge") or _alike(choice):
        choice = replace(choice, elect="before")
    return choice


def _alike(choice: Merge) -> bool:
    """Whether weighting cannot change which sign wins."""
    return len(set(choice.weights)) == 1 and choice.weights[0] > 0


def _weights_of_sum(choice: Merge) -> list[float]:
    """Weights of a plain sum, with the divisor in them."""
    divisor = {"weights": sum(choice.weights), "count": len(choice.weights)}.get(choice.divisor, 1.0) or 1.0
    return [weight / divisor for weight in choice.weights]


# ---- files -----------------------------------------------------------------------------------------------------

def adapter_files(folder: Path) -> list[Path]:
    """What belongs to an adapter in PEFT's layout: its weights and their description; [] where there is none."""
    return sorted(path for path in folder.glob("*") if path.suffix in (".json", ".safetensors") and path.is_file())


def adapter_zip(folder: Path) -> bytes:
    """The adapter as a ZIP archive of one folder."""
    return _zip(adapter_files(folder), folder.parent.name)


def full_model_bytes(run: Run) -> int:
    """About what a full model of the run takes on the disk: as much as its base; 0 where that is not in the run."""
    return sum(path.stat().st_size for path in run.full_model_dir("base").glob("*.safetensors"))


def full_model_zip(run: Run, model: str = "merged") -> bytes:
    """A model of the run, its adapter merged into the weights, as a ZIP archive of one folder in Hugging Face's layout.

    Made by the command line, since only the engine has torch. InputError with its words where that fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / model
        words = [sys.executable, "-m", "unlearn_core", "export", str(run.path.resolve()), "--model", model]
        done = subprocess.run([*words, "--out", str(folder)], cwd=CODE, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no word"]
            raise InputError(f"run {run.id}: full model of {model}", got=said[-1], expected="a model that loads")
        return _zip(sorted(path for path in folder.iterdir() if path.is_file()), model)


def _zip(files: list[Path], folder: str) -> bytes:
    """Files in one folder of an archive, uncompressed, since weights do not shrink."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in files:
            archive.write(path, f"{folder}/{path.name}")
    return buffer.getvalue()
