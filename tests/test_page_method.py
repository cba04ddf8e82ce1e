"""The method page: its sections with and without a run, its toys, terms as addresses; and links to terms everywhere."""

import json
import re
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import glossary, method_loss
from tests import example_run, example_sweep, example_trajectory, test_ablations, test_balancing, test_merging
from unlearn_core.vocabulary import METRICS

ROOT = Path(__file__).parent.parent
SECTIONS = {"loss": 0, "brake": 1, "ties": 1, "scores": 2, "glossary": 0}  # and their charts
TERM_LINK = re.compile(r"\]\(method\?term=([\w.]+)(?:&run=([\w.-]+))?\)")


def open_page(monkeypatch, root, run=None, page="method", **address):
    monkeypatch.setenv("LETHE_RUNS", str(root))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update(address | ({"run": run.id} if run else {}))
    app.run()
    if page != "overview":
        app.switch_page(f"pages/{page}.py")
        # A link brings its whole address, of which a switch in a test keeps nothing.
        app.query_params.update(address)
        app.run()
    assert not app.exception
    return app


def section(app, name, key="method_section"):
    app.segmented_control(key=key).set_value(name).run()
    assert not app.exception
    return app


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown, app.latex)
    return " ".join(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", element.value) for kind in kinds for element in kind)


def numbers(app):
    return {metric.label: metric.value for metric in app.metric}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


# ---- sections

@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_of_a_finished_run_is_drawn(monkeypatch, run, name):
    app = section(open_page(monkeypatch, run.path.parent, run), name)
    assert len(app.get("plotly_chart")) == SECTIONS[name]
    assert not app.error
    assert not app.warning


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_there_without_any_run(monkeypatch, tmp_path, name):
    app = section(open_page(monkeypatch, tmp_path), name)
    assert len(app.get("plotly_chart")) == SECTIONS[name]
    assert not app.error
    if name == "loss":
        assert "Settings of recipe paper, as there is no run yet." in texts(app)
        assert "Not measured: nothing was trained here." in texts(app)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_there_for_a_run_that_brought_its_models(monkeypatch, tmp_path, name):
    run = example_run.create(tmp_path)
    run.note(brought={"tested": {"model": "/somewhere", "adapter": None}})
    app = section(open_page(monkeypatch, tmp_path, run), name)
    assert len(app.get("plotly_chart")) == SECTIONS[name]
    if name == "ties":
        assert "the chosen run brought its models and trained nothing" in texts(app)
        assert "Norms" not in texts(app)


def test_a_run_that_has_not_begun_says_what_is_not_measured(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, example_run.create(tmp_path))
    assert "Not measured: this run has no steps of unlearning yet." in texts(app)
    assert "Where a run begins and ends is not measured" in texts(section(app, "brake"))
    assert "Norms of the changes: not measured." in texts(section(app, "ties"))
    said = texts(section(app, "scores"))
    assert "Made-up scores, as no model of this run has all twelve" in said
    assert "as MMLU of both is not measured" in said


def test_the_loss_is_told_with_the_runs_own_numbers(monkeypatch, run):
    app = open_page(monkeypatch, run.path.parent, run)
    symbols, steps = (frame.value for frame in app.dataframe)
    assert symbols.set_index("Setting").loc["npo_weight", ["Model 1", "Model 2"]].tolist() == ["0.4", "0.3"]
    last = run.steps("model_1")[-1]
    assert steps.set_index("quantity").loc["NPO", "Model 1, step 120"] == last["npo"]
    assert "Model 1: 0.4 × (2 / 0.1) ln 2 = 5.545" in texts(app)


def test_the_norms_of_measured_adapters_are_told(monkeypatch, smoke_run):
    said = texts(section(open_page(monkeypatch, smoke_run.path.parent, smoke_run), "ties"))
    assert re.search(r"Norms of the changes: Model 1 \S+, Model 2 \S+, Merged \S+\. Norm ratio: \d", said)


def test_a_section_and_its_sliders_can_be_opened_by_address(monkeypatch, run):
    app = open_page(monkeypatch, run.path.parent, run, method_section="brake", method_delta="10.0")
    assert app.slider(key="method_delta").value == 10.0
    assert app.query_params["method_section"] == "brake"


def test_an_address_with_an_unknown_section_opens_the_first(monkeypatch, run):
    app = open_page(monkeypatch, run.path.parent, run, method_section="nowhere")
    assert app.segmented_control(key="method_section").value == "loss"


# ---- toys

def test_the_sliders_of_the_brake_change_its_numbers(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "brake")
    assert numbers(app) == {"NPO": "11.963", "Plain ascent": "11.863", "Brake": "0.900"}  # beta 0.1, Delta 2
    app.slider(key="method_delta").set_value(20.0).run()
    app.select_slider(key="method_beta").set_value(0.5).run()
    assert numbers(app)["Brake"] == f"{float(method_loss.brake(20, 0.5)):.3f}"
    last = method_loss.delta_of(run.steps("model_1")[-1]["npo_brake"], 0.1)
    assert f"Model 1 Δ = {last:.2f} (step 120, its own β 0.1)" in texts(app)


def test_a_sum_over_tokens_brakes_sooner_than_their_mean(monkeypatch, run):
    said = texts(section(open_page(monkeypatch, run.path.parent, run), "brake"))
    assert "the brake is **0.90**" in said
    assert "Δ is 36 and the brake **0.053**" in said  # 18 tokens of 2 nats


def test_density_and_weights_change_what_ties_makes(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "ties")
    assert app.table[0].value.loc["Merged by TIES"].tolist() == ["0.8", "−0.6", "0.3", "0.6"]
    app.select_slider(key="method_density").set_value(0.25).run()
    assert app.table[0].value.loc["Merged by TIES"].tolist() == ["0.8", "−0.7", "0", "0"]
    assert "No entry is a conflict" in texts(app)
    app.slider(key="method_weight_1").set_value(0.0).run()
    app.slider(key="method_weight_2").set_value(0.0).run()
    assert "weights; got [0.0, 0.0]; expected two numbers, not both 0" in texts(app)


def test_texts_of_ones_own_are_scored_and_never_markdown(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "scores")
    app.text_input(key="method_reference").set_value("one two three four").run()
    app.text_input(key="method_generation").set_value("one [x](http://evil.example) three").run()
    assert "2 of 4 words stand in the answer in the right order" in texts(app)
    assert "2 / 4 = **0.500**" in texts(app)
    assert not any("](http" in element.value for element in app.markdown)
    app.text_input(key="method_reference").set_value("").run()
    assert "Without a word that should be there the score is 0." in texts(app)


def test_the_threshold_and_one_sub_score_change_what_is_said(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "scores")
    assert "in 8 of 9 pairs the member has the lower loss, so it is **0.889**" in texts(app)
    app.slider(key="method_threshold").set_value(3.0).run()
    assert "3 of 3 members are recognised, 2 of 3 non-members are false alarms" in texts(app)
    assert f"Task Aggregate: **{run.scores()['merged']['task_aggregate']:.3f}**" in texts(app)
    app.selectbox(key="method_sub_score").set_value("forget_knowledge_1").run()
    app.slider(key="method_value_forget_knowledge_1").set_value(1.0).run()
    assert "Task Aggregate: **0.000**" in texts(app)
    assert "One term of 0 makes all of it 0." in texts(app)


def test_the_gate_is_that_of_the_numbers_typed(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "scores")
    app.number_input(key="method_mmlu_base").set_value(0.8).run()
    app.number_input(key="method_mmlu_model").set_value(0.5).run()
    assert "0.500 is below it: the gate is **not passed**" in texts(app)


# ---- glossary

@pytest.mark.parametrize(("term", "name"), [("task_aggregate", "Task Aggregate"), ("model_1.beta", "unlearn.beta"),
                                            ("retain", "forget, retain"), ("gate.leak", "Leaks of people (gate)")])
def test_a_term_in_the_address_opens_the_glossary_at_it(monkeypatch, run, term, name):
    app = open_page(monkeypatch, run.path.parent, run, term=term)
    assert app.segmented_control(key="method_section").value == "glossary"
    assert app.subheader[0].value == name
    entry = glossary.find(term)
    assert entry.text in texts(app)
    assert [element.value.strip("$ \n").removesuffix(r"\,") for element in app.latex] == [
        entry.formula] * bool(entry.formula)
    assert f"term={entry.key}" in texts(app)


def test_an_opened_score_has_direction_ideal_chance_source_and_pages(monkeypatch, run):
    said = texts(open_page(monkeypatch, run.path.parent, run, term="mia_auc"))
    for words in ("Ideal: 0.5", "Direction: neither end is good", "Chance: 0.5", "(https://arxiv.org/abs/2504.02883)",
                  f"[Overview](./?run={run.id})", f"[Sign conflicts](signs?run={run.id})"):
        assert words in said


def test_every_formula_of_the_glossary_can_be_opened(monkeypatch, run):
    app = open_page(monkeypatch, run.path.parent, run, term="npo")
    for key in ("leak_k", "privleak", "merge.weights"):
        app.selectbox(key="method_term").set_value(key).run()
        assert not app.exception
        assert app.subheader[0].value == glossary.find(key).name
        assert app.query_params["term"] == key
    app.selectbox(key="method_term").set_value(None).run()
    assert "term" not in app.query_params


def test_a_term_that_there_is_not_is_named_as_text(monkeypatch, run):
    app = open_page(monkeypatch, run.path.parent, run, term="![p](http://evil.example)")
    assert "The glossary has no term ![p](http" in texts(app).replace("\u2060", "")
    assert not any("![" in warning.value for warning in app.warning)


def test_the_list_shows_the_words_of_the_document(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "glossary")
    said = " ".join(element.value for element in app.markdown)
    document = glossary.DOCUMENT.read_text(encoding="utf-8").split("## Scores")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \| [^|]+ \|$", document, flags=re.M)[1:]
    assert len(rows) > 80
    assert [name for name, meaning in rows if f"**{name}**: {meaning}" not in said.replace("|", r"\|")
            and f"**{name}**: {meaning}" not in said] == []


def test_the_list_is_searched_and_filtered_by_kind(monkeypatch, run):
    app = section(open_page(monkeypatch, run.path.parent, run), "glossary")
    assert f"{len(glossary.entries())} of {len(glossary.entries())} entries." in texts(app)
    app.text_input(key="method_search").set_value("sign conflict").run()
    app.button_group(key="method_kinds").set_value(["word"]).run()
    assert [element.value for element in app.subheader] == ["Words"]
    assert "1 of" in texts(app)
    app.text_input(key="method_search").set_value("zzz").run()
    assert "0 of" in texts(app)


# ---- links to terms everywhere

WALK = {  # sections of pages that have some: key of the choice, and its options
    "loss": ("loss_section", ["terms", "nll", "optimizer", "npo", "scores", "base"]),
    "merge": ("merge_section", ["preview", "methods", "density", "mix", "balance"]),
    "weights": ("weights_section", ["where", "direction", "spectrum", "distribution", "ablation"]),
    "signs": ("signs_section", ["states", "where", "density", "steps", "effects"]),
    "metrics": ("metrics_section", ["scores", "compare", "attack", "rouge", "memory", "knowledge", "collapse"]),
    "leaks": ("leaks_section", ["who", "much", "samples", "others"]),
    "robustness": ("robust_section", ["verdict", "controls", "probes", "depth"]),
    "method": ("method_section", list(SECTIONS))}
PAGES = sorted(path.stem for path in (ROOT / "pages").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def whole(smoke_run, tmp_path_factory):
    """A run with everything that a page may show of it, beside a sweep."""
    root = tmp_path_factory.mktemp("whole")
    run = type(smoke_run)(shutil.copytree(smoke_run.path, root / smoke_run.id))
    example_trajectory.write(run)
    test_merging.write(run)
    test_balancing.store(run)
    run.write_ablations(test_ablations.SUBSET | {"rows": test_ablations.ROWS})
    sweep = example_sweep.planned(root)
    for number in range(2):
        example_sweep.finished(root, sweep, number, 0, {"merged": {"task_aggregate": 0.5, "mia_auc": 0.4}})
    return run


def shown_scores(app):
    """The scores whose labels a reader sees in charts and tables."""
    seen = [json.dumps(json.loads(chart.proto.spec)) for chart in app.get("plotly_chart")]
    for table in app.dataframe:
        seen += [table.proto.columns, *map(str, table.value.columns)]
        seen += [str(cell) for cell in table.value.to_numpy().ravel() if isinstance(cell, str)]
    seen = [text.replace("<br>", " ") for text in seen]
    return {key for key, metric in METRICS.items()
            if any(re.search(rf"(?<!Task ){re.escape(metric.label)}\b", text) for text in seen)}


def views(app, page):
    """The page in each of its sections."""
    key, names = WALK.get(page, (None, [None]))
    for name in names:
        yield name, section(app, name, key) if name else app


@pytest.mark.parametrize("page", PAGES)
def test_each_score_on_a_page_has_a_link_to_its_definition_there(monkeypatch, whole, page):
    app = open_page(monkeypatch, whole.path.parent, whole, page)
    for name, view in views(app, page):
        links = TERM_LINK.findall(" ".join(element.value for element in view.markdown))
        assert shown_scores(view) - {term for term, _ in links} == set(), name
        assert {run for _, run in links} <= {whole.id}, name
        assert [term for term, _ in links if glossary.find(term) is None] == [], name
        for score in shown_scores(view):
            assert page in {glossary.path(title) or "overview" for title in glossary.find(score).pages}, (name, score)


def test_the_walk_sees_scores_where_there_are_some(monkeypatch, whole):
    app = open_page(monkeypatch, whole.path.parent, whole, "overview")
    assert shown_scores(app) == set(METRICS)
    app = open_page(monkeypatch, whole.path.parent, whole, "merge")
    assert {"mia_auc", "task_aggregate"} <= shown_scores(section(app, "methods", "merge_section"))


def test_every_field_of_the_form_leads_to_its_definition(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, page="train")
    fields = {widget.key.removeprefix("train_field_"): widget for kind in (app.text_input, app.selectbox, app.toggle)
              for widget in kind if widget.key and widget.key.startswith("train_field_")}
    links = {term for term, _ in TERM_LINK.findall(" ".join(element.value for element in app.markdown))}
    assert len(fields) > 15
    for name, widget in fields.items():
        key = glossary.find(name).key
        assert key in links
        if not name.startswith("model_"):  # those of two models stand in rows whose name has the help
            assert widget.help.endswith(f"[Definition](method?term={key})")
