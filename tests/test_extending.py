"""The worked examples of docs/extending.md, carried out on a copy of the code: patches apply, their tests pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("app.py", "pages", "analysis", "unlearn_core", "tests", "docs", "examples", "pyproject.toml", "README.md")
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.M | re.S))


def blocks(section):
    """(language, file or "", contents) of each fenced block."""
    return re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```", section, flags=re.M | re.S)


def copied(target):
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, target / name)


def run(folder, *command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(folder)})
    assert done.returncode == 0, done.stdout[-3000:]


def test_there_is_an_example_for_each_kind_of_part():
    assert list(SECTIONS) == ["A loss", "A merge method", "A metric", "A page"]
    assert all({"diff", "python"} == {language for language, _, _ in blocks(text)} for text in SECTIONS.values())


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed; it applies the patches")
@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_works_as_it_is_written(name, tmp_path):
    copied(tmp_path)
    written = []
    for language, file, contents in blocks(SECTIONS[name]):
        if language == "diff":
            done = subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=contents, text=True, capture_output=True)
            assert done.returncode == 0, f"{done.stderr}\n{contents}"
            written += re.findall(r"^\+\+\+ b/(\S+)", contents, flags=re.M)
        else:
            (tmp_path / file).write_text(contents, encoding="utf-8")
            written.append(file)
    run(tmp_path, "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *written)
    if "`python -m analysis.glossary`" in SECTIONS[name]:
        run(tmp_path, "analysis.glossary")
    told = re.findall(r"`(tests/\w+\.py)`", SECTIONS[name])  # tests that are there already and have to pass, too
    run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", *told, *(f for f in written if f.startswith("tests/")))
