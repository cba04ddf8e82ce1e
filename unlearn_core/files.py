"""Small files that are never half written: JSON objects, JSON lines, and whole folders. Torch-free."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from unlearn_core.errors import InputError


@contextmanager
def replacing(path: Path, binary: bool = False) -> Iterator[IO]:
    """A file beside `path` to write to, moved over it at the end: the old or the new content, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") if binary else temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Replace `path` by a JSON value, whole or not at all."""
    with replacing(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> dict | None:
    """The object in `path`, or None where the file does not exist; anything else is an InputError that names it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"broken JSON ({error})") from None
    if not isinstance(value, dict):
        raise damaged(path, json.dumps(value))
    return value


def reserve(file: IO, size: int) -> None:
    """Make a file `size` bytes long with its room on the disk taken now: a full disk is an OSError here, where it
    would kill a process that writes to a mapped file."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    else:
        file.truncate(max(size, 1))


def damaged(place: Path | str, got: object) -> InputError:
    """What to say about a file of a run that is not what was written."""
    return InputError(f"{place}", got=got, expected="a JSON object written by Lethe",
                      fix="restore it, or remove the run folder")


def unreadable(place: Path, error: OSError) -> InputError:
    """`damaged` for a file or folder that the system does not let us read."""
    return damaged(place, error.strerror or type(error).__name__)


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """Replace `path` by these JSON lines, whole or not at all."""
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[dict]:
    """All whole JSON lines of `path` ([] if there is none); an unfinished last line is skipped."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path, error) from None
    whole = text[: text.rfind(b"\n") + 1].split(b"\n")
    return [_row(path, number, line) for number, line in enumerate(whole, start=1) if line.strip()]


def _row(path: Path, number: int, line: bytes) -> dict:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(f"{path}, line {number}", f"a broken line ({error})") from None
    if not isinstance(row, dict):
        raise damaged(f"{path}, line {number}", json.dumps(row))
    return row


@contextmanager
def replacing_dir(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to fill, moved to its place at the end and removed if that fails.

    What a killed process left of an earlier try is swept away first.
    """
    recovered(target)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        replace_dir(temporary, target)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(f"{target}: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_dir(source: Path, target: Path) -> None:
    """Move a finished folder into place; what stood there before is removed only afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    recovered(target)
    old = _old(target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)


def recovered(target: Path) -> Path:
    """`target`, which is first put back if a process was killed between the two moves of `replace_dir`."""
    if _old(target).exists() and not target.exists():
        os.replace(_old(target), target)
    return target


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
