"""What a number depends on beside recipe and data, kept with it: device, commit of the code, package versions."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path


def surroundings(device: str) -> dict:
    """{"device", "commit", "versions"} of this process, for `run.json`."""
    return {"device": device, "commit": _commit(), "versions": _versions()}


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "rouge-score")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """Commit of the code, with "+changes" where files differ from it; empty outside a git checkout."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True,
                                 check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
