"""Downloads the public releases of LUME, SemEval-2025 Task 4 and MMLU: `python -m unlearn_core data fetch NAME`."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from unlearn_core.data import layout, readers
from unlearn_core.errors import InputError
from unlearn_core.files import replace_dir

# The release of 2,732 + 2,734 rows; an earlier commit has fewer.
LUME_URL = ("https://raw.githubusercontent.com/amazon-science/lume-llm-unlearning/"
            "b2fa8f9c567715f1e2c6d442213f33b2e9a28fe6/data/{file}")
LUME_SHA256 = {
    "forget.jsonl": "3a74f30223c35b173664dfea5b1c5939587f1eac868a9764891f30c2c317c381",
    "retain.jsonl": "ec8826a91d9fb9e5a50ba732549e8eff75fc99c2f67d6873d1ea36fd403a003d",
}
SEMEVAL_REPO = "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"
MMLU_URL = "https://people.eecs.berkeley.edu/~hendrycks/data.tar"
TIMEOUT = 30  # seconds without an answer

_MMLU_FILE = re.compile(r"(?:[^/]+/)?(?P<part>dev|test)/(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*)_(?P=part)\.csv")


def fetch(name: str, out: Path) -> Path:
    """Download "lume", "semeval" or "mmlu" and put it into the folder `out` once it is complete and checked.

    No connection, a broken download and a changed file are InputErrors that say how to get the data by hand.
    """
    if name not in _FETCHERS:
        raise InputError("data fetch", got=name, expected=f"one of {', '.join(_FETCHERS)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            ready = Path(temporary) / "ready"
            ready.mkdir()
            _FETCHERS[name](ready, out)
            _publish(ready, out)
    except OSError as error:
        raise InputError(f"{out}", got=str(error), expected="a folder that can be written") from error
    return out


def _publish(ready: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    for path in sorted(ready.iterdir()):
        if path.is_dir():
            replace_dir(path, out / path.name)
        else:
            os.replace(path, out / path.name)


def _fetch_lume(ready: Path, out: Path) -> None:
    for file, expected in LUME_SHA256.items():
        url = LUME_URL.format(file=file)
        _download(url, ready / file, fix=f"download {url} by hand and put it into {out}")
        found = hashlib.sha256((ready / file).read_bytes()).hexdigest()
        if found != expected:
            raise InputError(url, got=f"SHA-256 {found}", expected=expected, fix="nothing was kept; try again")


def _fetch_semeval(ready: Path, out: Path) -> None:
    copy = layout.download(SEMEVAL_REPO, folder=ready.parent / "hub")
    found = layout.find(copy)
    for split in ("forget", "retain"):
        if getattr(found, split) is None:
            raise InputError(SEMEVAL_REPO, got=f"a dataset without {split} file", expected="SemEval's layout")
        readers.read_items(getattr(found, split))
    for path in copy.iterdir():
        if not path.name.startswith("."):  # the hub's own notes
            os.replace(path, ready / path.name)


def _fetch_mmlu(ready: Path, out: Path) -> None:
    archive = ready.parent / "data.tar"
    _download(MMLU_URL, archive, fix=f"download {MMLU_URL} by hand and unpack its dev/ and test/ into {out}")
    extract_mmlu(archive, ready)


def extract_mmlu(archive: Path, folder: Path) -> None:
    """Unpack the CSV files of dev/ and test/ of MMLU's tar archive into `folder`, nothing else, and check them."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                match = _MMLU_FILE.fullmatch(member.name)
                if match and member.isfile():
                    part, name = match["part"], match["name"]
                    _write(tar.extractfile(member), folder / part / f"{name}_{part}.csv")
    except tarfile.TarError as error:
        raise InputError(f"{archive}", got=f"a broken archive ({error})", expected="MMLU's data.tar") from None
    readers.read_mmlu(folder)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb") as file:
            shutil.copyfileobj(source, file)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _download(url: str, target: Path, fix: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(url, got=f"no download ({error})", expected="a network connection", fix=fix) from error


_FETCHERS: dict[str, Callable[[Path, Path], None]] = {
    "lume": _fetch_lume, "semeval": _fetch_semeval, "mmlu": _fetch_mmlu,
}
