"""Every page on a run that brought its models, whose people have a field that only the lists know."""

import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import figures, frames, leaks, lineage, verdicts
from unlearn_core import run_models
from unlearn_core.data import load_saved
from unlearn_core.data.persons import field_of, persons
from unlearn_core.evaluation.leaks import LEAKED
from unlearn_core.judging import bring
from unlearn_core.judging.bring import Lists, Models
from unlearn_core.store import Store

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pages").glob("[!_]*.py"))
TRAINED = ["pages/loss.py", "pages/merge.py", "pages/signs.py", "pages/weights.py"]
BADGE = "badge number"


def rows_of(items):
    """Questions about people as a list of one's own, in which a Social Security number is a badge number."""
    names = {document: person.name for document, person in persons(items).items()}
    for item in items:
        if item.kind == "qa" and item.document in names:
            field = field_of(item)
            yield {"prompt": item.prompt, "answer": item.answer, "person": names[item.document],
                   "field": BADGE if field == "ssn" else field}


@pytest.fixture(scope="module")
def run(smoke_run, tmp_path_factory):
    """The smoke run's base, tested on its own people: it still knows them; the merge stands in as its base."""
    root = tmp_path_factory.mktemp("brought")
    for name in ("base", "merged"):
        run_models.export_of_run(smoke_run, name, root / name)
    files, data = {}, load_saved(smoke_run.data_dir)
    for split in ("forget", "retain", "holdout"):
        path = root / f"{split}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows_of(getattr(data, split))), encoding="utf-8")
        files[split] = [str(path)]
    return bring.evaluate(Models(str(root / "base"), base=str(root / "merged")), Lists(**files), Store(root / "runs"),
                          overrides=["threads=1", "evaluation.max_new_tokens=24"], device="cpu")


def open_page(monkeypatch, run, page, *choices):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["run"] = run.id
    app.run()
    if page != "pages/overview.py":
        app.switch_page(page).run()
    for key, value in choices:
        app.segmented_control(key=key).set_value(value).run()
    assert not app.exception
    assert [error.value for error in app.error if error.icon == ":material/broken_image:"] == []
    return app


def texts(app):
    kinds = (app.warning, app.info, app.caption, app.markdown, app.code, app.success, app.header, app.subheader)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens(monkeypatch, run, page):
    assert len(open_page(monkeypatch, run, page).title) == 1


@pytest.mark.parametrize("page", TRAINED)
def test_a_page_about_training_says_that_the_models_were_brought(monkeypatch, run, page):
    app = open_page(monkeypatch, run, page)
    assert "This run brought its models for evaluation (Tested, Base): nothing was trained or merged" in texts(app)
    assert not app.segmented_control


def test_the_watched_run_offers_no_training(monkeypatch, run):
    app = open_page(monkeypatch, run, "pages/train.py", ("train_view", "Watch"))
    assert "Finished: every model that was brought is scored." in texts(app)
    assert "nothing is trained in it" in texts(app)
    assert "train_fresh" not in {button.key for button in app.button}


def test_the_overview_speaks_of_the_tested_model(monkeypatch, run):
    said = texts(open_page(monkeypatch, run, "pages/overview.py"))
    assert "models that were brought: Tested, Base" in said
    assert "Tested model" in said
    assert "Did the tested model land on the 0.5 line?" in said
    assert "density" not in said


@pytest.mark.parametrize("section", ["scores", "compare", "attack", "rouge", "memory", "knowledge", "collapse"])
def test_every_section_of_the_metrics_is_drawn_or_explained(monkeypatch, run, section):
    app = open_page(monkeypatch, run, "pages/metrics.py", ("metrics_section", section))
    assert app.get("plotly_chart") or "not measured" in texts(app)


def test_the_attacks_documents_can_be_seen_although_they_have_no_continuation(monkeypatch, run):
    app = open_page(monkeypatch, run, "pages/metrics.py", ("metrics_section", "attack"),
                    ("metrics_attack_view", "losses"))
    assert app.get("plotly_chart")


@pytest.mark.parametrize("section", ["who", "much", "samples", "others"])
def test_every_section_of_the_leaks_is_drawn(monkeypatch, run, section):
    app = open_page(monkeypatch, run, "pages/leaks.py", ("leaks_section", section))
    drawn = {"who": len(app.dataframe), "samples": "No samples have been drawn" in texts(app)}
    assert drawn.get(section, app.get("plotly_chart"))
    if section == "samples":  # offered without an adapter
        assert app.button_group(key="leaks_sampled_models").value == ["base", "tested"]


def test_a_field_of_the_lists_is_counted_and_shown_by_its_name(run):
    found = leaks.read(run)
    assert found.after == "tested"
    own = found.fields[(found.fields["model"] == "tested") & (found.fields["field"] == BADGE)]
    assert LEAKED in set(own["state"])
    table = leaks.by_field(found)
    assert list(table["field"].unique()) == ["birth_date", "phone", "email", "address", BADGE]
    document = own[own["state"] == LEAKED]["document"].iloc[0]
    assert f"{BADGE}: Tested" in leaks.table(found, ["base", "tested"], own["split"].iloc[0], True)
    assert BADGE in found.persons[document].values


def test_masked_the_page_shows_neither_names_nor_values_of_any_field(monkeypatch, run):
    app = open_page(monkeypatch, run, "pages/leaks.py")
    said = texts(app)
    people = leaks.read(run).persons
    assert f"[{BADGE}]" in said
    assert not [person.name for person in people.values() if person.name in said]
    assert not [value for person in people.values() for value in person.values.values() if value in said]


def test_the_lineage_is_data_models_and_evaluation(run):
    table = lineage.table(run)
    assert list(table["stage"]) == ["data", "base", "tested", "evaluation"]
    assert set(table["state"]) == {lineage.DONE}
    assert table["detail"].iloc[2] == f"base\nSHA-256 {run.brought()['tested']['sha256'][:8]}"
    assert lineage.arrows(list(table["stage"])) == [("data", "base"), ("base", "evaluation"), ("data", "tested"),
                                                    ("tested", "evaluation")]
    figure = figures.lineage_graph(table)
    assert sum(note.showarrow for note in figure.layout.annotations) == 4
    assert len(figure.layout.shapes) == 4


def test_the_runs_table_has_the_tested_models_scores(run):
    row = frames.run_table([run]).iloc[0]
    assert row["mia_auc"] == run.scores()["tested"]["mia_auc"]
    assert verdicts.summary(frames.score_table(run)) == [
        f"{row['verdict']}: MIA AUC {row['mia_auc']:.2f} [{_interval(run)}], ideal 0.5"]


def _interval(run):
    return ", ".join(f"{end:.2f}" for end in run.intervals()["tested"]["mia_auc"])
