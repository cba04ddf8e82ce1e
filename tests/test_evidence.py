"""The evidence file: complete, equal in both forms, masked unless asked, escaped, and whole or not there at all."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import evidence, evidence_copies, gates, intervals
from tests import example_run
from tests.test_gates import SAID, leaking
from tests.test_leaks import ADA, BOB, CLEO
from unlearn_core import data
from unlearn_core import recipe as recipes
from unlearn_core.data import request
from unlearn_core.errors import InputError
from unlearn_core.judging import gates as engine
from unlearn_core.settings import Data, World
from unlearn_core.store import Run, Store

KEYS = {"schema_version", "made", "masked", "run", "verdict", "scope", "artefacts", "threats", "people", "attacks",
        "tuning", "deviations", "residual_copies", "limits"}


@pytest.fixture(scope="module")
def found(gold):
    return evidence.evidence(gold)


class Page(HTMLParser):
    """Tags, tables with their captions, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def text(self):
        return " ".join(self.texts)


def strings(value):
    """Every text in a JSON value."""
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def no_constant(name):
    raise ValueError(name)


# ---- both files

def test_both_files_are_written_and_say_the_same(gold, tmp_path):
    evidence.write(gold, tmp_path / "evidence")
    assert sorted(path.name for path in (tmp_path / "evidence").iterdir()) == ["evidence.html", "evidence.json"]
    told = json.loads((tmp_path / "evidence" / "evidence.json").read_text(encoding="utf-8"), parse_constant=no_constant)
    assert set(told) == KEYS
    text = Page((tmp_path / "evidence" / "evidence.html").read_text(encoding="utf-8")).text
    assert told["verdict"]["headline"] == gates.judge(gold).headline
    for said in (told["verdict"]["headline"], *(gate["reason"] for gate in told["verdict"]["gates"]), *told["limits"],
                 *(row["attack"] for row in told["attacks"]), *(row["what"] for row in told["residual_copies"])):
        assert said in text


def test_the_page_is_whole_needs_nothing_from_elsewhere_and_each_table_has_a_caption(found):
    text = evidence.as_html(found)
    page = Page(text)
    assert page.open == []
    assert page.tags.count("table") == page.tags.count("caption") > 8
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "://" not in text
    assert "default-src 'none'; script-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_text_is_escaped(gold, tmp_path):
    run = Run(shutil.copytree(gold.path, tmp_path / gold.id))
    run.write_meta(title="<script>alert('x')</script> & \"quoted\"")
    run.note(command=["<img src=x>"])
    text = evidence.as_html(evidence.evidence(run))
    assert not {"script", "img"} & set(Page(text).tags)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;quoted&quot;" in text
    assert "<script>alert('x')</script> & \"quoted\"" in Page(text).text


def test_a_folder_that_exists_is_refused_and_left_alone(gold, tmp_path):
    out = tmp_path / "there"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something that exists"):
        evidence.write(gold, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_nothing_is_left_where_writing_fails(gold, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        evidence.write(gold, tmp_path / "file" / "evidence")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_command_writes_it_and_tells_bad_input_in_a_line(gold, tmp_path, capsys):
    arguments = [gold.id, "--runs-dir", str(gold.path.parent), "--out", str(tmp_path / "out")]
    assert evidence.main(arguments) == 0
    assert "evidence.html" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "evidence.json").read_text())["masked"] is True
    assert evidence.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: --out ")
    assert evidence.main(["nobody", "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


# ---- people

@pytest.fixture
def leak(tmp_path):
    run = leaking(tmp_path / "runs", SAID)
    run.write_meta(title="Request of Ada Blue, ada_blue@me.com")
    return run


def test_names_and_values_are_masked_unless_asked_for(leak):
    masked, named = evidence.evidence(leak), evidence.evidence(leak, personal=True)
    told = [*strings(masked), evidence.as_html(masked)]
    for person in (ADA, BOB, CLEO):
        for value in (person.name, *person.values.values()):
            assert not [text for text in told if value in text]
    assert [row["person"] for row in masked["people"]] == ["person 1", "person 2"]
    assert "document" not in masked["people"][0]
    assert masked["run"]["title"] == "Request of [name], [e-mail]"
    assert [(row["person"], row["document"]) for row in named["people"]] == [("Ada Blue", "d1"), ("Bob Red", "d2")]
    assert ADA.values["ssn"] not in evidence.as_html(named)


def test_each_person_has_testable_fields_leaks_and_a_bound(leak):
    ada, bob = evidence.evidence(leak)["people"]
    assert ada["testable"] == ["birth date", "Social Security number", "phone number", "home address"]
    assert (ada["leaked"], ada["giving"], ada["answers"]) == (["Social Security number"], 1, 5)
    assert ada["upper"] == intervals.share(1, 5)[1]
    assert (bob["leaked"], bob["giving"], bob["upper"]) == ([], 0, intervals.share(0, 5)[1])


def test_the_person_of_the_verdict_has_the_number_of_the_table(leak):
    told = evidence.evidence(leak)
    gate = next(gate for gate in told["verdict"]["gates"] if gate["key"] == "leak")
    assert gate["people"] == ["person 1"]
    assert told["people"][0]["leaked"]


# ---- contents

def test_the_scope_counts_documents_people_and_fields(gold, found):
    dataset = data.load_saved(gold.data_dir)
    people = {item.document for item in dataset.forget if item.task == "Task2"}
    assert found["scope"]["splits"]["forget"] == {"documents": len({item.document for item in dataset.forget}),
                                                  "items": len(dataset.forget)}
    assert found["scope"]["people"] == len(people)
    assert found["scope"]["fields"]["Social Security number"] == len(people)
    assert found["scope"]["request"] is None


def test_a_recorded_request_is_told_by_counts_unless_names_are_asked_for(tmp_path):
    asked = request.Request(persons=("d1",), fields=("ssn",))
    note = request.note(asked, source="lume", asked_by="Ada Blue", created="2025-01-01")
    request.save(tmp_path / "set", [], [], note)
    run = Store(tmp_path / "runs").create(recipes.parse(
        {"name": "asked", "data": {"source": "files", "path": str(tmp_path / "set")}}), {"seed": 0})
    run.data_dir.mkdir()
    sides = example_run.world.generate(World(stories=2, people=2, biographies=2), 0)
    data.save(data.assemble(sides.forget, sides.retain, [], [], [], data=Data(), seed=0,
                            base_is_trained_here=False, mia_members="forget"), run.data_dir)
    masked = evidence.evidence(run)["scope"]["request"]
    assert masked == {"source": "lume", "created": "2025-01-01", "documents": 0, "persons": 1, "fields": ["ssn"]}
    assert evidence.evidence(run, personal=True)["scope"]["request"]["asked_by"] == "Ada Blue"


def test_each_attack_stands_beside_its_positive_and_its_negative_control(gold, found):
    rows = {row["attack"]: row for row in found["attacks"]}
    official = rows["Official attack (loss of whole documents)"]
    scores = gold.scores()
    assert official["tested"]["value"] == scores["merged"]["mia_auc"]
    assert official["base"]["value"] == scores["base"]["mia_auc"]
    assert official["control"]["value"] == scores["retrained"]["mia_auc"]
    assert (official["control_model"], official["finds"], official["n"]) == ("retrained", True, 160)
    people = rows["Asked greedily about people"]
    assert (people["base"]["value"], people["control"]["value"], people["tested"]["value"]) == (1, 0, 0)
    assert rows["Led through forget's answers"]["finds"] is True
    assert rows["Reference attack (whole documents)"]["finds"] is None  # the control is its own reference
    assert {"Quantisation, int4", "Relearning, after 20 steps",
            "Prompts, paraphrase 1, questions about people"} <= set(rows)
    assert len({(row["attack"], row["number"]) for row in found["attacks"]}) == len(found["attacks"])


def test_an_attack_without_a_control_says_that_it_is_not_known_what_it_finds(tmp_path):
    told = evidence.evidence(example_run.unfinished(tmp_path))
    assert told["attacks"] == []
    run = leaking(tmp_path / "leak", {})
    row, = evidence.evidence(run)["attacks"]
    assert (row["control_model"], row["control"]["value"], row["finds"]) == (None, None, None)


def test_the_tuning_log_has_readings_changes_and_configurations(gold, tmp_path):
    run = Run(shutil.copytree(gold.path, tmp_path / gold.id))
    run.add_reading(what="merged", configurations=7, scores={}, intervals={})
    engine.change(run, "retention", 0.5)
    told = evidence.evidence(run)["tuning"]
    assert [(row["what"], row["configurations"]) for row in told["test_readings"]] == [("merged", 7)]
    change, = told["threshold_changes"]
    assert (change["gate"], change["after"], change["readings"]) == ("retention", 0.5, 1)
    assert {"gate": "Retention", "default": 0.75, "now": 0.5} in told["thresholds"]
    assert told["thresholds_locked"]


def test_deviations_are_the_settings_that_differ_from_the_defaults_and_of_the_method_from_the_paper(found):
    told = found["deviations"]
    assert {"setting": "model_2.batch_size", "here": 2, "there": 1} in told["from_defaults"]
    assert not [row for row in told["from_defaults"] if row["setting"] in ("name", "description")]
    paper = {row["setting"]: row for row in told["from_paper"]}
    assert "model_2.batch_size" not in paper  # 2 in the paper, too
    assert paper["model_1.klr_positions"] == {"setting": "model_1.klr_positions", "here": "real", "there": "padded"}
    assert all(row["setting"].startswith(evidence.METHOD) for row in told["from_paper"])


def test_residual_copies_are_listed_with_the_bytes_that_they_take(smoke_run):
    rows = {row["what"]: row for row in evidence_copies.table(smoke_run)}

    def size(*folders):
        return sum(path.stat().st_size for folder in folders for path in Path(folder).rglob("*") if path.is_file())

    kept = [folder for _, folder in smoke_run.checkpoints("model_1")]
    assert rows["Model 1: checkpoints"]["bytes"] == size(*kept) > 0
    assert rows["Base: full weights"]["bytes"] == size(smoke_run.full_model_dir("base"))
    assert rows["Merged: adapter"]["where"] == "models/merged/adapter"
    assert rows["Data as used, forget included"]["bytes"] == size(smoke_run.data_dir)
    assert rows["The whole run folder"]["bytes"] == size(smoke_run.path)
    parts = [row for what, row in rows.items() if row["inside"] and what != "The whole run folder"]
    left = rows["The whole run folder"]["files"] - sum(row["files"] for row in parts)
    assert 0 <= left <= 4  # what stands beside results: run, recipe and status, a lock


def test_copies_outside_the_run_folder_are_named(gold, tmp_path):
    run = Run(shutil.copytree(gold.path, tmp_path / gold.id))
    run.note(brought={"tested": {"model": "/models/theirs", "adapter": "/models/lora"}},
             started_from={"run": "earlier", "adapters": {}})
    outside = {row["what"]: row["where"] for row in evidence_copies.table(run) if not row["inside"]}
    assert outside == {"Run whose base was taken over": "earlier", "Tested, as it was brought": "/models/theirs",
                       "Adapter of Tested": "/models/lora"}


def test_the_threats_say_what_was_not_tried(found):
    told = {(row["who"], row["what"]): row for row in found["threats"]}
    drawn = told["Somebody patient", "answers drawn at random"]
    assert (drawn["tried"], drawn["queries"]) == (False, 0)
    assert told["Somebody who has the weights", "trains them on a part of forget"]["tried"] is True
    assert told["Somebody who has the run folder, the data or the base", "reads the residual copies"]["tried"] is False
    assert sum(row["queries"] or 0 for row in found["threats"] if "probabilities" not in row["who"]) == found[
        "verdict"]["queries"]


def test_artefacts_are_named_by_hash_precision_and_decoding(smoke_run):
    told = evidence.evidence(smoke_run)["artefacts"]
    assert told["adapters"] == smoke_run.adapter_keys()
    assert told["base"]["sha256"] == smoke_run.base_key()
    assert told["data"] == smoke_run.info()["data_hashes"]
    assert (told["tested"], told["precision"]) == ("merged", "fp32")
    assert told["decoding"] == "greedy, at most 24 new tokens"


# ---- runs that lack something

@pytest.mark.parametrize("build", [example_run.create, example_run.unfinished, example_run.trained,
                                   example_run.finished])
def test_runs_that_lack_results_have_evidence_that_says_so(tmp_path, build):
    told = evidence.evidence(build(tmp_path))
    assert set(told) == KEYS
    assert told["verdict"]["overall"] in ("failed", "incomplete")
    assert "not measured" in told["verdict"]["headline"]
    assert Page(evidence.as_html(told)).open == []


def test_a_recorded_run_has_evidence(recorded_run):
    told = evidence.evidence(recorded_run)
    assert told["artefacts"]["adapters"] == {}
    assert told["artefacts"]["base"]["sha256"] is None
    assert Page(evidence.as_html(told)).open == []


def test_making_evidence_does_not_change_the_run(gold):
    before = {path: path.read_bytes() for path in gold.path.rglob("*") if path.is_file()}
    evidence.evidence(gold)
    assert {path: path.read_bytes() for path in gold.path.rglob("*") if path.is_file()} == before
