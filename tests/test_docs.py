"""What the documentation says against what is there: commands, links, the code map, recipes, settings, version."""

import dataclasses
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from unlearn_core import arguments, cli
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.settings import Recipe
from unlearn_core.sweep import sweep_grid

ROOT = Path(__file__).parent.parent
README, COMMANDS, INSTALL = ROOT / "README.md", ROOT / "docs" / "commands.md", ROOT / "docs" / "install.md"
DOCS = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = [path for folder in ("unlearn_core", "pages", "analysis") for path in sorted((ROOT / folder).rglob("*.py"))]
MAPPED = "unlearn_core"  # the folder whose every part the map names
RECIPES = sorted(path.stem for path in recipes.RECIPES.glob("*.toml"))


def named(path):
    return str(path.relative_to(ROOT))


def shell_lines(text):
    """Lines of fenced blocks and inline code, without their comments."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    return [line.split(" #")[0].strip() for block in [*fenced, *inline] for line in block.splitlines()]


def commands(path, start):
    """(file, command) for each command in a document that starts so."""
    return [(path, line) for line in shell_lines(path.read_text(encoding="utf-8")) if line.startswith(start)]


def shown(commands):
    return pytest.mark.parametrize(("path", "line"), commands, ids=[f"{named(p)}: {line}" for p, line in commands])


ENGINE = [command for path in DOCS for command in commands(path, "python -m unlearn_core")]
EXAMPLES = [line.strip().split("  ")[0] for line in arguments.EXAMPLES.splitlines()]
ENGINE += [(Path(arguments.__file__), line) for line in EXAMPLES if line.startswith("python -m unlearn_core")]
MAKE = [command for path in DOCS for command in commands(path, "make ")]


# ---- commands ------------------------------------------------------------------------------------------------

def test_every_command_of_the_engine_is_shown():
    known = next(iter(cli.parser()._subparsers._group_actions)).choices
    assert len(known) > 20
    assert set(known) == {shlex.split(line)[3] for path, line in ENGINE if path == COMMANDS}


@shown(ENGINE)
def test_a_command_of_the_engine_parses_and_its_recipe_is_valid(path, line):
    options = cli.parser().parse_args(shlex.split(line)[3:])
    if options.command is cli.sweep and options.recipe:
        assert sweep_grid.plan(options.recipe, options.set, options.variant).configurations
    elif getattr(options, "recipe", None) and not getattr(options, "without", ""):  # with which it is a run
        assert recipes.load(options.recipe, options.set).name == options.recipe


def test_what_is_shown_for_a_notebook_runs_on_the_examples(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = {}
    exec(re.search(r"^```python\n(.*?)^```", COMMANDS.read_text(encoding="utf-8"), flags=re.M | re.S)[1], found)
    assert list(found["scores"]["model"])[-1] == "merged"
    assert len(found["paired"]) > 12
    assert found["problems"] == []


@pytest.mark.parametrize("line", ["python -m unlearn_core rnu demo", "python -m unlearn_core run demo --sed 1"])
def test_a_command_with_a_slip_would_be_found(line):
    with pytest.raises(SystemExit):
        cli.parser().parse_args(shlex.split(line)[3:])


def test_a_setting_with_a_slip_would_be_found():
    with pytest.raises(InputError, match="did you mean density"):
        recipes.load("demo", ["merge.desity=0.6"])


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@shown(MAKE)
def test_a_make_target_exists(path, line):
    done = subprocess.run([*shlex.split(line), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@shown([command for path in DOCS for command in commands(path, "pip install -r")])
def test_a_requirements_file_exists(path, line):
    assert (ROOT / shlex.split(line)[3]).is_file()


def test_the_torch_that_is_pinned_is_installed():
    pinned = re.search(r"^torch==\S+", (ROOT / "requirements.txt").read_text(encoding="utf-8"), flags=re.M)[0]
    assert set(re.findall(r"torch==[\d.]+", INSTALL.read_text(encoding="utf-8"))) == {pinned}


def test_ci_runs_the_test_command_of_the_readme():
    assert (README, "make test") in MAKE
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.M)


def test_the_readme_says_what_every_page_is_for():
    pages = re.findall(r'st\.Page\([^)]*?title="([^"]+)"', (ROOT / "app.py").read_text(encoding="utf-8"))
    assert len(pages) > 10
    assert re.findall(r"^\| ([A-Z][\w ]+) \|", README.read_text(encoding="utf-8"), flags=re.M) == pages


# ---- links and map -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", DOCS, ids=named)
def test_every_relative_link_leads_to_a_file(path):
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target]
    assert [target for target in relative if not (path.parent / target).exists()] == []


def code_map():
    """Paths that the README's map names, relative to the repository."""
    block = re.search(r"^## Map of the code\s+```\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)[1]
    paths, folder = [], ""
    for line in block.splitlines():
        indented, names = line.startswith("  "), re.match(r"\s*((?:\S+ )+)", line)[1].split()
        names = [name for name in names if re.fullmatch(r"\w+(?:\.py|/)", name)]
        folder = folder if indented else names[0]
        paths += [folder + name if indented else name for name in names]
    return paths


def test_everything_on_the_map_exists():
    assert len(code_map()) > 15
    assert [path for path in code_map() if not (ROOT / path).exists()] == []


def test_the_map_names_every_part_of_the_engine():
    folder = ROOT / MAPPED
    parts = {f"{MAPPED}/{path.name}" for path in folder.glob("[!_]*.py")}
    parts |= {f"{MAPPED}/{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert parts - set(code_map()) == set()


# ---- recipes and settings ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", RECIPES)
def test_it_is_said_what_a_recipe_is_for(name):
    assert re.search(rf"^\| `{name}` \| \w.* \| \w.* \|$", COMMANDS.read_text(encoding="utf-8"), flags=re.M)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_bears_the_name_of_its_file(name):
    recipe = recipes.load(name)
    assert recipe.name == name
    assert recipe.description


def settings(kind=Recipe, prefix=""):
    """(dotted name, dataclass field) of every setting."""
    for field in dataclasses.fields(kind):
        inner = getattr(kind(), field.name)
        if dataclasses.is_dataclass(inner):
            yield from settings(type(inner), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def test_every_setting_has_a_help_text():
    found = dict(settings())
    assert {"seed", "model_2.npo_weight", "merge.density"} <= set(found)
    assert [name for name, field in found.items() if not field.metadata.get("help", "").strip()] == []


def test_each_setting_that_the_documents_set_exists():
    written = {key for path in DOCS for key in re.findall(r"--set '?([\w.]+)=", path.read_text(encoding="utf-8"))}
    written |= {key for path in recipes.RECIPES.glob("*.toml")
                for key in re.findall(r"--set '?([\w.]+)=", path.read_text(encoding="utf-8"))}
    assert "base.model" in written
    written = {re.sub(r"^unlearn\.", "model_1.", key) for key in written}  # `unlearn` sets both models
    assert written - set(dict(settings())) == set()


# ---- files ---------------------------------------------------------------------------------------------------

def test_the_newest_entry_of_the_changelog_is_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)[0] == version


@pytest.mark.parametrize("path", CODE, ids=named)
def test_a_source_file_begins_with_its_purpose(path):
    text = path.read_text(encoding="utf-8")
    assert not text or text.startswith('"""')
