"""Run folders to and from zip files: nothing executable, nothing outside the store, whole or not at all. Torch-free."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from unlearn_core.errors import InputError
from unlearn_core.files import unreadable
from unlearn_core.store import Run

# What a run folder holds; above all no pickle and no code, which a later load could carry out.
SUFFIXES = (".json", ".jsonl", ".txt", ".md", ".csv", ".safetensors", ".toml", ".parquet", ".jinja")
NAMES = ("tokenizer.model",)
MAX_FILES = 20_000
MAX_BYTES = 16 * 2**30  # of a zip file, unpacked
MAX_RATIO, SMALL = 100, 100 * 2**20  # unpacked bytes per packed one, where there are more than SMALL: logs reach 20
MAX_NAME = 200  # characters of a run's folder
COPY_BYTES = 2**20
SHOWN = 5  # names in a message
ALLOWED = f"a run folder's kinds of files ({' '.join(SUFFIXES)})"


@dataclass(frozen=True)
class File:
    """A file to copy: its path below the run folder, its size in bytes, and how to open it."""

    name: PurePosixPath
    size: int
    open: Callable[[], BinaryIO]
    is_link: bool = False


# ---- export ----------------------------------------------------------------------------------------------------

def export_run(run: Run, target: BinaryIO | Path, *, weights: bool) -> None:
    """Write a zip file of the run folder, names under `<run id>/`; `weights` adds weights, checkpoints, resume state.

    A running run may be exported: a file that vanishes is left out, a log ends with its last whole line, and its
    resume state, which changes as a whole, is left out. So are hidden files, links and what an import would refuse.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for file in exported(run, weights):
            path = run.path / file.name
            try:
                entry = zipfile.ZipInfo.from_file(path, f"{run.id}/{file.name}", strict_timestamps=False)
                source = file.open()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(path, error) from None
            # Weights are noise to a compressor: it takes long and saves nothing.
            entry.compress_type = zipfile.ZIP_STORED if path.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            with source, archive.open(entry, "w", force_zip64=True) as place:
                shutil.copyfileobj(source, place, COPY_BYTES)


def export_size(run: Run, *, weights: bool) -> int:
    """Bytes that `export_run` would read."""
    return sum(file.size for file in exported(run, weights))


def exported(run: Run, weights: bool) -> list[File]:
    left_out = () if weights else _weights(run)
    return [file for file in _files(run) if not file.is_link and _is_allowed(file.name)
            and not any((run.path / file.name).is_relative_to(folder) for folder in left_out)]


def _weights(run: Run) -> list[Path]:
    return [place for model in run.models()
            for place in (run.full_model_dir(model), run.adapter_dir(model), run.initial_adapter_dir(model),
                          run.checkpoint_dir(model, 0).parent, run.resume_dir(model))]


def _files(run: Run) -> list[File]:
    """Every file and link of a run folder that is not hidden, sorted by name; without the resume state if it runs."""
    changing = [run.resume_dir(model) for model in run.models()] if _may_be_running(run) else []
    found = []
    for folder, folders, names in os.walk(run.path):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".") and Path(folder, name) not in changing]
        for path in (Path(folder, name) for name in (*names, *links) if not name.startswith(".")):
            try:
                info = path.lstat()
            except FileNotFoundError:
                continue
            found.append(File(PurePosixPath(path.relative_to(run.path)), info.st_size,
                               lambda path=path: _open(run, path), is_link=not stat.S_ISREG(info.st_mode)))
    return sorted(found, key=lambda file: file.name)


def _may_be_running(run: Run) -> bool:
    try:
        return run.status()["state"] == "running"
    except InputError:
        return True


def _open(run: Run, path: Path) -> BinaryIO:
    """The file; of a log that may still be written to, the whole lines."""
    if path == run.log_path or (path.suffix == ".jsonl" and not path.is_relative_to(run.data_dir)):
        text = path.read_bytes()
        return io.BytesIO(text[: text.rfind(b"\n") + 1])
    return path.open("rb")


# ---- import ----------------------------------------------------------------------------------------------------

def import_path(store_root: Path, path: str | Path) -> Run:
    """`import_folder` or `import_run`, by what is at `path` on this machine."""
    path = Path(path).expanduser()
    if path.is_dir():
        return import_folder(store_root, path)
    if path.is_file():
        return import_run(store_root, path)
    raise InputError("import", got=str(path), expected="a run folder or a zip file of one on this machine")


def import_run(store_root: Path, zip_file: BinaryIO | Path, *, max_bytes: int = MAX_BYTES) -> Run:
    """Unpack an exported run into the store as a new run; a name that is taken gets a number.

    The `id` in its manifest stays, since adapters name their base by it. Refused as a whole, with an InputError: what
    is not a zip file with exactly one run folder in it, unsafe or repeated names, links, kinds of files that no run
    has, more than `MAX_FILES` files or `max_bytes` bytes, a manifest or recipe that cannot be read.
    """
    try:
        limit = min(max_bytes, max(SMALL, MAX_RATIO * _length(zip_file)))
        with zipfile.ZipFile(zip_file) as archive:
            entries = _entries(archive)
            top = _top_folder(entries)
            files = [File(PurePosixPath(entry.filename).relative_to(top), entry.file_size,
                           lambda entry=entry: archive.open(entry)) for entry in entries if not entry.is_dir()]
            total = sum(file.size for file in files)
            if total > limit:  # no file yields more than it declares: the rest of it would fail the checksum
                raise InputError("the zip file", got=f"{_gigabytes(total)} unpacked",
                                 expected=f"at most {_gigabytes(limit)} from a file of its size",
                                 fix="unpack it yourself and import the folder")
            return _place(store_root, top, files, "the zip file")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise InputError("import", got=f"no whole zip file ({error})", expected="a zip file exported from Lethe",
                         fix="export or copy it again") from None
    except OSError as error:
        raise _not_copied(error) from None


def import_folder(store_root: Path, folder: Path) -> Run:
    """Copy a run folder on this machine into the store as a new run; checks and names as in `import_run`."""
    source = Run(Path(folder).expanduser().resolve())
    if not source.path.is_dir():
        raise InputError("import", got=str(folder), expected="a run folder")
    if source.path.parent == Path(store_root).resolve():
        raise InputError("import", got=str(folder), expected="a run folder of another place",
                         fix="this one is in the list already")
    source.info()  # before anything is copied
    files = _files(source)
    links = [str(file.name) for file in files if file.is_link]
    if links:
        raise InputError(f"the folder {source.path}", got=f"links or devices, {_some(links)}",
                         expected="files and folders only", fix="put the files themselves in their place")
    try:
        return _place(store_root, source.id, files, f"the folder {source.path}")
    except OSError as error:
        raise _not_copied(error) from None


def _place(store_root: Path, name: str, files: list[File], where: str) -> Run:
    """Copy the files into a hidden folder of the store, and move that to its name when it is a readable run."""
    _check_files(files, where)
    root = Path(store_root)
    root.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(root).free, sum(file.size for file in files)
    if needed > free:
        raise InputError(where, got=f"{_gigabytes(needed)} of files", expected=f"at most {_gigabytes(free)}, the free "
                                                                               f"space in {root}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("-._")[:MAX_NAME] or "run"
    with tempfile.TemporaryDirectory(prefix=".import-", dir=root) as temporary:
        ready = Path(temporary, name)
        ready.mkdir()
        for file in files:
            target = ready / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open() as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy, COPY_BYTES)
        Run(ready).info()
        Run(ready).recipe()
        return _move(ready, root)


def _move(ready: Path, root: Path) -> Run:
    """Move a finished folder to the first name that is free; a rename onto a folder with files in it fails."""
    number = 1
    while True:
        target = root / (ready.name if number == 1 else f"{ready.name}-{number}")
        try:
            if not target.exists():
                ready.rename(target)
                return Run(target)
        except FileExistsError:
            pass
        number += 1


def _check_files(files: list[File], where: str) -> None:
    if len(files) > MAX_FILES:
        raise InputError(where, got=f"{len(files)} files", expected=f"at most {MAX_FILES}")
    repeated = [name for name, count in Counter(str(file.name).casefold() for file in files).items() if count > 1]
    if repeated:
        raise InputError(where, got=f"more than one file named {_some(repeated)}", expected="each name once")
    foreign = [str(file.name) for file in files if not _is_allowed(file.name)]
    if foreign:
        raise InputError(where, got=_some(foreign), expected=ALLOWED, fix="take the others out")


def _is_allowed(name: PurePosixPath) -> bool:
    return name.suffix in SUFFIXES or name.name in NAMES


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """All entries, each found safe, without what file managers add: hidden files and macOS's folder."""
    for entry in archive.infolist():
        if problem := _unsafe(entry):
            raise InputError("the zip file", got=f"{entry.orig_filename}: {problem}",
                             expected="plain names below one run folder")
    return [entry for entry in archive.infolist()
            if not any(part == "__MACOSX" or part.startswith(".") for part in entry.filename.split("/"))]


def _top_folder(entries: list[zipfile.ZipInfo]) -> str:
    """The one folder that holds everything."""
    tops = sorted({entry.filename.split("/")[0] for entry in entries})
    if len(tops) != 1 or any("/" not in entry.filename for entry in entries):
        raise InputError("the zip file", got=f"at its top {_some(tops) or 'nothing'}",
                         expected="one run folder with everything in it", fix="zip the folder, not its contents")
    return tops[0]


def _unsafe(entry: zipfile.ZipInfo) -> str:
    """Why an entry of a zip file must not be unpacked, "" if it may."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    if "\\" in name or ":" in name:
        return "a path of another system"
    if not name.isprintable():
        return "a name with unprintable characters"
    if name.startswith("/") or {"", ".", ".."} & set(name.removesuffix("/").split("/")):
        return "a path that leaves the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device"
    if entry.flag_bits & 1:
        return "an encrypted file"
    return "" if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else "an unusual compression"


def _length(zip_file: BinaryIO | Path) -> int:
    """Size of the packed file in bytes."""
    return zip_file.stat().st_size if isinstance(zip_file, Path) else zip_file.seek(0, os.SEEK_END)


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _not_copied(error: OSError) -> InputError:
    return InputError("import", got=f"{error.strerror or error}: {error.filename or 'no place'}",
                      expected="files that can be read and a folder that can be written", fix="nothing was imported")
