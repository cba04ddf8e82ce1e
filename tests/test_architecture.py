"""The rules between the parts, as code: who imports whom, who knows a run folder's names, where pages are listed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "unlearn_core").rglob("*.py"))
ANALYSIS = sorted((ROOT / "analysis").rglob("*.py"))
UI = [ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))]

# Names that the store gives to the files of a run folder.
RUN_FILES = {"run.json", "recipe.json", "status.json", "meta.json", "scores.json", "intervals.json", "steps.jsonl",
             "answers.jsonl", "documents.jsonl", "mmlu.jsonl", "log.txt", "job.json", "trajectory.json",
             "samples.jsonl", "gates.json", "readings.json"}


def imported(path):
    """Top-level names of everything that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def files(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


@files(ENGINE)
def test_the_engine_does_not_know_the_dashboard(path):
    assert imported(path) & {"streamlit", "plotly", "altair", "analysis", "pages", "app"} == set()


@files(ANALYSIS)
def test_analysis_knows_neither_the_interface_nor_torch(path):
    assert imported(path) & {"streamlit", "pages", "app", "torch", "transformers", "peft", "accelerate"} == set()


@files(UI)
def test_pages_do_not_load_torch(path):
    assert imported(path) & {"torch", "transformers", "peft", "accelerate"} == set()


@files(ENGINE)
def test_the_engine_needs_no_pandas(path):
    assert "pandas" not in imported(path)


# ---- order of the engine ----

def layers():
    """{part of the engine, a file or a folder: its line in docs/architecture.md, 0 the lowest}."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = re.search(r"^```\n(cli\n.*?)^```", text, flags=re.M | re.S)[1].split("\n")[-2::-1]
    return {part: line for line, parts in enumerate(lines) for part in parts.split(", ")}


def parts_used(path):
    """Parts of the engine that a file imports, inside functions too; not those that only its annotations name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If)
              and getattr(node.test, "id", "") == "TYPE_CHECKING" for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in unread and node.module.startswith("unlearn_core"):
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]


@files([path for path in ENGINE if path.name != "__main__.py"])
def test_a_part_of_the_engine_imports_from_lower_layers_only(path):
    order, own = layers(), path.relative_to(ROOT / "unlearn_core").parts[0].removesuffix(".py")
    assert [part for part in parts_used(path) if part != own and order[part] >= order.get(own, len(order))] == []


def test_the_layers_name_every_part_of_the_engine():
    parts = {path.relative_to(ROOT / "unlearn_core").parts[0].removesuffix(".py") for path in ENGINE}
    assert set(layers()) == parts - {"__init__", "__main__"}


# Import every module of the engine where none of some packages can be imported; what fails.
IMPORT_ALL = """
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
import unlearn_core
for module in pkgutil.walk_packages(unlearn_core.__path__, "unlearn_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_the_engine_imports_on_a_machine_that_only_trains():
    absent = ["streamlit", "plotly", "altair", "rouge_score", "nltk", "pyarrow", "gguf"]
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *absent], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


def test_reading_and_drawing_runs_loads_neither_torch_nor_streamlit():
    modules = ["unlearn_core.store", "unlearn_core.recipe", "unlearn_core.vocabulary",
               *(f"analysis.{path.stem}" for path in ANALYSIS if path.stem != "__init__")]
    code = f"import sys, {', '.join(modules)}; print(*{{'torch', 'transformers', 'streamlit'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@files([path for path in ENGINE + ANALYSIS + UI if path.parent != ROOT / "unlearn_core" / "store"])
def test_only_the_store_knows_the_names_inside_a_run_folder(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [text for text in texts if text.rsplit("/", 1)[-1] in RUN_FILES and " " not in text] == []


def test_the_app_lists_every_page_and_navigates_itself():
    calls = [node for node in ast.walk(ast.parse((ROOT / "app.py").read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    listed = {call.args[0].value for call in calls if call.func.attr == "Page"}
    assert listed == {f"pages/{path.name}" for path in (ROOT / "pages").glob("[!_]*.py")}
    assert [call.func.attr for call in calls].count("navigation") == 1


def test_no_part_of_a_page_takes_the_pages_own_name():
    """Streamlit's older discovery would see pages/_loss.py and pages/loss.py as two pages of one address."""
    names = [path.stem for path in (ROOT / "pages").glob("*.py")]
    assert {name.lstrip("_") for name in names if name[0] == "_"} & set(names) == set()


@files([path for path in UI if path.name != "_cache.py"])
def test_pages_show_no_foreign_html(path):
    text = path.read_text(encoding="utf-8")
    assert "unsafe_allow_html" not in text
    assert "st.html" not in text.replace("st.html(DARK_STYLE)", "")  # our own style sheet, a file
