"""One definition of everything: each score, gate, setting and word, from its one source; the document and the pages."""

import ast
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from analysis import glossary, glossary_formulas, headlines
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.judging.gates import GATES
from unlearn_core.vocabulary import METRICS, SUB_SCORES

ROOT = Path(__file__).parent.parent


def pages():
    """{title: path in addresses} of the pages, read from the app's own list."""
    tree = ast.parse((ROOT / "app.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "Page"]
    settings = [{one.arg: one.value.value for one in call.keywords} for call in calls]
    return {own["title"]: "" if own.get("default") else Path(call.args[0].value).stem
            for call, own in zip(calls, settings, strict=True)}


# ---- completeness

@pytest.mark.parametrize("key", METRICS)
def test_every_score_has_an_entry_with_all_that_there_is_to_say(key):
    entry, metric = glossary.find(key), METRICS[key]
    assert (entry.kind, entry.name, entry.text) == ("score", metric.label, metric.help)
    assert entry.ideal == ("that of the base" if metric.ideal is None else str(metric.ideal).removesuffix(".0"))
    assert entry.direction == {True: "higher is better", False: "lower is better", None: "neither end is good"}[
        metric.higher_is_better]
    assert all([entry.formula, entry.chance, entry.source, entry.pages])


def test_every_setting_has_an_entry_in_the_recipes_own_words():
    for name, field, _ in recipes.settings():
        entry = glossary.find(name)
        assert entry.kind == "setting", name
        assert entry.text == field.metadata["help"]


def test_both_models_settings_are_one_entry_under_the_table_that_sets_both():
    assert glossary.find("model_1.beta") is glossary.find("model_2.beta")
    assert glossary.find("model_1.beta").key == "unlearn.beta"
    assert not [key for key in glossary.entries() if key.startswith(("model_1.", "model_2."))]


def test_the_default_and_the_limits_of_a_setting_are_the_recipes():
    density, method = glossary.find("merge.density"), glossary.find("merge.method")
    assert (density.default, density.limits) == ("0.8", "above 0 and at most 1")
    assert method.limits.startswith("one of ties, linear, ")
    assert glossary.find("merge.weights").default == "[1.0, 1.0]"
    assert glossary.find("data.mmlu").default == "empty"
    assert glossary.find("lora.layers").default == "[]"


def test_every_gate_has_an_entry_with_its_threshold():
    for gate in GATES:
        entry = glossary.find(f"gate.{gate.key}")
        assert gate.question in entry.text
        assert entry.default == f"{gate.threshold:g}"
        assert bool(entry.limits) != gate.vetoes


def test_keys_are_fit_for_addresses_and_no_other_name_hides_an_entry():
    assert all(re.fullmatch(r"[a-z0-9_.]+", key) for key in glossary.entries())
    assert set(glossary._others()) & set(glossary.entries()) == set()
    names = [name for _, names in glossary._words() for name in names]
    assert len(names) == len(set(names))


def test_every_formula_belongs_to_an_entry_and_its_brackets_close():
    assert set(glossary_formulas.WORDS) <= {entry.key for entry in glossary.search(kinds=["word"])}
    assert set(glossary_formulas.SETTINGS) <= {entry.key for entry in glossary.search(kinds=["setting"])}
    formulas = [entry.formula for entry in glossary.entries().values() if entry.formula]
    assert len(formulas) > 40
    assert [text for text in formulas if text.count("{") != text.count("}")] == []
    assert [text for text in formulas if text.count(r"\left") != text.count(r"\right")] == []


def test_every_entry_names_pages_that_there_are():
    known = pages()
    assert known["Sign conflicts"] == "signs"
    for entry in glossary.entries().values():
        assert entry.pages, entry.key
        assert set(entry.pages) <= set(known), entry.key
    assert {title: glossary.path(title) for title in known} == known


def test_the_chance_level_of_the_mia_score_is_the_one_that_so_few_documents_have():
    level = headlines.chance_levels({}, 150, 150)["mia_score"]
    assert f"{level:.3f} with 150 + 150" in glossary.find("mia_score").chance
    assert glossary.find("mmlu").chance.startswith(f"{headlines.QUIZ_CHANCE:g},")


# ---- the document

def test_the_document_has_what_the_sources_say_today():
    written = glossary.DOCUMENT.read_text(encoding="utf-8")
    assert written.endswith(glossary.rest()), "bring it up to date with: python -m analysis.glossary"


def test_every_row_of_words_in_the_document_is_an_entry_with_its_words():
    text = glossary.DOCUMENT.read_text(encoding="utf-8").split("## Scores")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \| ([^|]+) \|$", text, flags=re.M)[1:]
    words = {entry.name: entry for entry in glossary.search(kinds=["word"])}
    assert len(rows) == len(words) > 80
    for name, meaning, where in rows:
        assert words[name].text == meaning.replace(r"\|", "|")
        assert words[name].pages == tuple(where.split(", "))


def test_no_word_of_the_document_is_a_score_that_has_its_source_elsewhere():
    labels = {metric.label.lower() for metric in METRICS.values()}
    assert labels.isdisjoint(name.lower() for _, names in glossary._words() for name in names)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_document_that_cannot_be_read_is_named(monkeypatch, tmp_path, content):
    path = tmp_path / "glossary.md"
    if content:
        path.write_bytes(content)
    monkeypatch.setattr(glossary, "DOCUMENT", path)
    with pytest.raises(InputError, match=r"glossary\.md; got .*expected the words that the pages use"):
        glossary._words.__wrapped__()


# ---- look-up

@pytest.mark.parametrize(("wanted", "key"), [
    ("retain", "forget"), ("delta_w", "task_vector"), ("uds", "depth_score"), ("leak_k", "leak_k"),
    ("model_2.epochs", "unlearn.epochs"), ("seed", "seed")])
def test_an_entry_is_found_by_each_of_its_names(wanted, key):
    assert glossary.find(wanted).key == key


@pytest.mark.parametrize("wanted", ["", "nothing", "model_1.nothing", "unlearn", "task_aggregate.x", "Task Aggregate"])
def test_what_there_is_not_is_not_found(wanted):
    assert glossary.find(wanted) is None


def test_a_search_wants_every_word_in_any_order_and_only_the_chosen_kinds():
    assert [entry.key for entry in glossary.search("auc MIA", ["score"])] == ["mia_score", "mia_auc"]
    assert {entry.kind for entry in glossary.search("mmlu")} == {"score", "word", "setting", "gate"}
    assert glossary.search("no such word at all") == []
    assert len(glossary.search()) == len(glossary.entries())


def test_the_scores_in_a_table_are_found_by_column_label_and_row():
    assert glossary.metrics_in(pd.DataFrame(columns=["model", "mia_auc", "task_aggregate", "mia_auc_low"])) == [
        "task_aggregate", "mia_auc"]
    assert glossary.metrics_in(pd.DataFrame(columns=["MMLU", "Seed"])) == ["mmlu"]
    rows = pd.DataFrame({"metric": [SUB_SCORES[0].key, "MIA AUC", "mean_forget"], "value": [0.1, 0.5, math.nan]})
    assert glossary.metrics_in(rows) == ["mia_auc", "forget_regurgitation_1"]
    assert glossary.metrics_in(pd.DataFrame()) == []


def terms_named(path):
    """Keys that a page gives to `definitions` or as `terms`, in parts that are folded up, too."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call):
            given = [word.value for word in call.keywords if word.arg == "terms"]
            given += call.args if getattr(call.func, "attr", "") == "definitions" else []
            yield from (part.value for node in given for part in getattr(node, "elts", [node])
                        if isinstance(part, ast.Constant))


def test_every_term_that_a_page_names_is_defined():
    named = {term for path in (ROOT / "pages").glob("*.py") for term in terms_named(path)}
    assert len(named) > 30
    assert {term for term in named if glossary.find(term) is None} == set()
