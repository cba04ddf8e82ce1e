"""Finds the files of a data set: folders in LUME's or SemEval's layout, MMLU folders, and data sets on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unlearn_core.errors import InputError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
HUB = "hf://datasets/"


@dataclass(frozen=True)
class Files:
    """Where the parts of the data lie; None for what is not there."""

    forget: Path | None = None
    retain: Path | None = None
    mia: Path | None = None  # folder with member.jsonl and nonmember.jsonl
    mmlu: Path | None = None  # folder with dev/ and test/


def find(folder: str | Path) -> Files:
    """The files of a folder in LUME's layout (forget.jsonl) or SemEval's (forget_train-*.parquet, mia_data/).

    Each may also lie in data/. Of SemEval's parts, train is taken before validation.
    """
    folder = local(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}", got="no such folder", expected="a folder with forget and retain files")
    return Files(_find_split(folder, "forget"), _find_split(folder, "retain"), find_mia(folder), find_mmlu(folder))


def _find_split(folder: Path, split: str) -> Path | None:
    for stem in (split, f"{split}_train", f"{split}_validation"):
        for place in (folder, folder / "data"):
            for suffix in SUFFIXES:
                if (place / f"{stem}{suffix}").is_file():
                    return place / f"{stem}{suffix}"
                shards = sorted(place.glob(f"{stem}-*{suffix}"))
                if len(shards) > 1:
                    raise InputError(f"{place}", got=f"{len(shards)} files {stem}-*{suffix}", expected="one",
                                     fix=f"join them and name the file in data.{split}")
                if shards:
                    return shards[0]
    return None


def find_mia(folder: Path) -> Path | None:
    """The first of `folder`, its mia_data/ and that one's subfolders (train first) with both member files."""
    inner = folder / "mia_data"
    below = [p for p in inner.iterdir() if p.is_dir()] if inner.is_dir() else []
    places = [folder, inner, *sorted(below, key=lambda p: ("train" not in p.name, p.name))]
    return next((p for p in places if (p / "member.jsonl").is_file() and (p / "nonmember.jsonl").is_file()), None)


def find_mmlu(folder: Path) -> Path | None:
    """The first of `folder`, its mmlu/ and data/ with MMLU's test CSV files."""
    places = (folder, folder / "mmlu", folder / "mmlu" / "data", folder / "data")
    return next((p for p in places if any((p / "test").glob("*_test.csv"))), None)


def local(path: str | Path) -> Path:
    """A path on this machine: `hf://datasets/owner/name[@revision][/file]` is downloaded to the hub's cache first."""
    if not str(path).startswith(HUB):
        return Path(path)
    owner, name, *inside = [*str(path).removeprefix(HUB).strip("/").split("/"), ""]
    if not owner or not name:
        raise InputError(f"{path}", expected=f"{HUB}owner/name or {HUB}owner/name/path/of/file")
    name, _, revision = name.partition("@")
    return download(f"{owner}/{name}", "/".join(inside).strip("/"), revision=revision or None)


def download(repo: str, file: str = "", *, revision: str | None = None, folder: Path | None = None) -> Path:
    """A file of a hub dataset, or all its data files, in the hub's cache or in `folder`."""
    import huggingface_hub

    try:
        if Path(file).suffix in SUFFIXES:
            return Path(huggingface_hub.hf_hub_download(repo, file, repo_type="dataset", revision=revision))
        inside = f"{file}/" if file else ""
        patterns = [f"{inside}*{suffix}" for suffix in SUFFIXES]  # the hub's * also crosses folders
        root = huggingface_hub.snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=folder,
                                                 allow_patterns=patterns)
        return Path(root) / file
    except Exception as error:  # the hub's client raises the errors of several HTTP libraries
        raise InputError(f"{HUB}{repo}/{file}".rstrip("/"), got=f"no download ({error})",
                         expected="a connection to huggingface.co",
                         fix=f"fetch https://huggingface.co/datasets/{repo} on a machine that is online and give the "
                             "path of the copy") from error
