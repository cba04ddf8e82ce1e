"""Probes on the smoke run: what they measure is what the model itself gives, controls included; stopped, they go on."""

import shutil
import time
from pathlib import Path

import pytest

from tests.test_quantise import int4_recovering
from unlearn_core import cli, data, jobs, models, run_models
from unlearn_core.data import Item, persons, readers, rephrase
from unlearn_core.errors import InputError
from unlearn_core.evaluation.recall import MEASURES, recall
from unlearn_core.judging import bring, probes
from unlearn_core.judging.relearn import marks, parts
from unlearn_core.merging.task_vectors import load_adapter, save_adapter, scaled
from unlearn_core.store import Run, Store

FEW = {"documents": 2, "device": "cpu"}  # of each task: one is learned, one only asked


def by_place(run, name):
    """{(model, setting, part, measure): value} of a probe."""
    rows = run.probe(name)["rows"]
    found = {(row["model"], row["setting"], row["part"], row["measure"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def itself(run, model, items, asked=None):
    """{measure: value} of a model of the run."""
    dataset, recipe = data.load_saved(run.data_dir), run.recipe()
    rows = recall(*run_models.load(run, recipe, model, "cpu"), items, asked=asked,
                  people=persons.persons([*dataset.forget, *dataset.retain]),
                  max_new_tokens=recipe.evaluation.max_new_tokens)
    return {row["measure"]: row["value"] for row in rows}


def of(found, model, setting, part):
    return {measure: found[model, setting, part, measure] for measure in MEASURES}


# ---- relearning

@pytest.fixture(scope="module")
def relearned(smoke_run, tmp_path_factory):
    """A copy of the smoke run, relearned for five steps, and both parts of its documents."""
    run = Run(shutil.copytree(smoke_run.path, tmp_path_factory.mktemp("relearned") / smoke_run.id))
    probes.relearning(run, steps=5, lr=5e-3, **FEW)
    items = data.subset(data.load_saved(run.data_dir).forget, 2, 0)
    return run, *parts(items, 0.5, 0)


def test_at_step_0_relearning_finds_what_the_model_itself_gives(relearned):
    run, learned, asked = relearned
    found = by_place(run, "relearning")
    for model in ("merged", "base", "untrained"):
        assert of(found, model, 0, "asked") == itself(run, model, asked)
        assert of(found, model, 0, "relearned") == itself(run, model, learned)


def test_the_handed_out_model_the_base_and_one_that_never_saw_forget_are_probed_at_each_mark(relearned):
    rows = relearned[0].probe("relearning")["rows"]
    assert [(row["model"], row["setting"]) for row in rows[::2 * len(MEASURES)]] == [
        (model, step) for model in ("merged", "base", "untrained") for step in (0, 1, 2, 5)]
    assert {row["on"] for row in rows} == {"forget"}
    assert relearned[0].status()["state"] == "finished"


def test_what_is_relearned_comes_back_in_the_merge_and_the_base_keeps_it(relearned):
    found = by_place(relearned[0], "relearning")
    for model, least in (("merged", 0.05), ("base", 0.0)):
        first, last = (found[model, step, "relearned", "probability"] for step in (0, 5))
        assert last > first + least


def test_relearning_goes_on_where_it_was_stopped_and_ends_as_an_unbroken_one(relearned, smoke_copy):
    def report(stage, done, total):
        if stage == "relearning: base" and done == 2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        probes.relearning(smoke_copy, steps=2, lr=5e-3, report=report, **FEW)
    assert {row["model"] for row in smoke_copy.probe("relearning")["rows"]} == {"merged", "base"}
    assert smoke_copy.status()["state"] == "finished"
    seen: list[tuple] = []
    probes.relearning(smoke_copy, ["merged", "base"], steps=5, lr=5e-3, **FEW,
                      report=lambda stage, done, total: seen.append((stage, done)))
    wanted = {place: value for place, value in by_place(relearned[0], "relearning").items() if place[0] != "untrained"}
    assert by_place(smoke_copy, "relearning") == wanted  # more steps begin as fewer do, to the bit
    assert ("relearning: merged", 5) in seen
    before = smoke_copy.probe("relearning")
    probes.relearning(smoke_copy, ["merged"], steps=2, lr=5e-3, report=lambda stage, *_: seen.clear(), **FEW)
    assert smoke_copy.probe("relearning") == before
    assert seen  # nothing was loaded, so nothing was reported


def test_training_on_retain_is_a_control_on_the_same_questions(smoke_copy):
    probes.relearning(smoke_copy, ["merged"], steps=1, **FEW)
    probes.relearning(smoke_copy, ["merged"], steps=1, on="retain", **FEW)
    rows = {(row["on"], row["setting"], row["part"], row["measure"]): row for row in
            smoke_copy.probe("relearning")["rows"]}
    for measure in MEASURES:
        assert rows["retain", 0, "asked", measure]["value"] == rows["forget", 0, "asked", measure]["value"]
    learned = parts(data.subset(data.load_saved(smoke_copy.data_dir).retain, 2, 0), 0.5, 0)[0]
    start = itself(smoke_copy, "merged", learned)
    assert {measure: rows["retain", 0, "relearned", measure]["value"] for measure in MEASURES} == start
    assert rows["retain", 1, "asked", "probability"] != rows["forget", 1, "asked", "probability"]


def test_other_settings_and_other_adapters_begin_anew(smoke_copy):
    probes.quantisation(smoke_copy, ["base"], documents=1, group=16, device="cpu")
    probes.quantisation(smoke_copy, ["merged"], documents=1, device="cpu")
    assert {row["model"] for row in smoke_copy.probe("quantisation")["rows"]} == {"merged"}
    first = by_place(smoke_copy, "quantisation")
    changed = scaled(load_adapter(smoke_copy.adapter_dir("merged")), 0.5)
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    save_adapter(changed, smoke_copy.adapter_dir("merged"))
    probes.quantisation(smoke_copy, ["merged"], documents=1, device="cpu")
    second = by_place(smoke_copy, "quantisation")
    assert first.keys() == second.keys()
    assert first["merged", "fp", "forget", "probability"] != second["merged", "fp", "forget", "probability"]
    assert smoke_copy.probe("quantisation")["about"]["adapters"] == smoke_copy.adapter_keys()


# ---- which documents, which steps

def items(task, names, person=""):
    return [Item(f"{name}qa{n}", f"{name} {n}?", "a", task, person) for name in names for n in (0, 1)]


def test_each_task_is_split_and_every_document_is_on_one_side():
    mixed = items("Task1", "abcde") + items("Task3", "vwxyz")
    learned, asked = parts(mixed, 0.4, 3)
    for task in ("Task1", "Task3"):
        both = [{item.document for item in side if item.task == task} for side in (learned, asked)]
        assert [len(side) for side in both] == [2, 3]
        assert both[0].isdisjoint(both[1])
    assert parts(list(reversed(mixed)), 0.4, 3)[0] == list(reversed(learned))  # the order of the items plays no part
    assert len({tuple(item.id for item in parts(mixed, 0.4, seed)[0]) for seed in range(8)}) > 1


def test_all_documents_of_a_person_are_on_one_side():
    people = [one for n in range(6) for one in items("Task2", (f"p{n}a", f"p{n}b"), f"Person {n}")]
    for seed in range(5):
        learned, asked = parts(people, 0.5, seed)
        assert (len(learned), len(asked)) == (12, 12)
        assert {item.person for item in learned}.isdisjoint({item.person for item in asked})


@pytest.mark.parametrize(("share", "sizes"), [(0.01, (2, 8)), (0.99, (8, 2)), (0.5, (6, 4))])  # of 5: 1, 4, 2.5 -> 3
def test_some_are_always_learned_and_some_asked(share, sizes):
    assert tuple(map(len, parts(items("Task1", "abcde"), share, 0))) == sizes
    assert tuple(map(len, parts(items("Task1", "a"), share, 0))) == (0, 2)


@pytest.mark.parametrize(("steps", "wanted"), [
    (1, [0, 1]), (2, [0, 1, 2]), (7, [0, 1, 2, 5, 7]), (50, [0, 1, 2, 5, 10, 20, 50]),
    (200, [0, 1, 2, 5, 10, 20, 50, 100, 200])])
def test_marks_grow_and_end_at_the_last_step(steps, wanted):
    assert marks(steps) == wanted


# ---- quantisation

def test_at_full_precision_quantisation_finds_what_the_model_itself_gives_on_both_sides(smoke_copy):
    probes.quantisation(smoke_copy, ["merged"], **FEW)
    found, dataset = by_place(smoke_copy, "quantisation"), data.load_saved(smoke_copy.data_dir)
    for side in ("forget", "retain"):
        items = data.subset(getattr(dataset, side), 2, 0)
        assert of(found, "merged", "fp", side) == itself(smoke_copy, "merged", items)
        assert of(found, "merged", "int4", side) != of(found, "merged", "fp", side)
    rounded = {row["setting"]: row["rounded"] for row in smoke_copy.probe("quantisation")["rows"]}
    assert rounded["fp"] == 0 < rounded["int8"] == rounded["int4"] < 1


@pytest.fixture(scope="module")
def brought(smoke_run, tmp_path_factory):
    """A run of a planted model that int4 brings back, beside its base and the untrained model, all of them brought."""
    folder = tmp_path_factory.mktemp("brought")
    models.save_model(*int4_recovering(smoke_run), folder / "planted")
    dataset = data.load_saved(smoke_run.data_dir)
    for side in ("forget", "retain"):
        readers.write_items(folder / f"{side}.jsonl", getattr(dataset, side))
    return bring.evaluate(
        bring.Models(str(folder / "planted"), base=str(smoke_run.full_model_dir("base")),
                     untrained=str(smoke_run.full_model_dir("untrained"))),
        bring.Lists([str(folder / "forget.jsonl")], [str(folder / "retain.jsonl")]), Store(folder / "runs"),
        overrides=["evaluation.max_new_tokens=24", "threads=1"], device="cpu")


def test_of_a_brought_model_int4_brings_back_what_was_planted(brought):
    probes.quantisation(brought, device="cpu")
    found = by_place(brought, "quantisation")
    assert {place[0] for place in found} == {"tested", "base", "untrained"}
    for measure in ("exact_match", "extraction_strength", "leaking"):
        hidden, int8, int4 = (found["tested", setting, "forget", measure] for setting in ("fp", "int8", "int4"))
        assert hidden == pytest.approx(int8, abs=0.1)
        assert int4 == pytest.approx(found["base", "int4", "forget", measure], abs=1e-6)
        assert int4 > hidden + 0.3


def test_a_brought_model_can_be_relearned_and_another_one_in_its_place_is_refused(brought):
    probes.relearning(brought, ["tested"], steps=1, lr=5e-3, **FEW)
    assert {row["model"] for row in brought.probe("relearning")["rows"]} == {"tested"}
    base, tested = (Path(brought.brought()[name]["model"]) / "model.safetensors" for name in ("base", "tested"))
    planted = tested.read_bytes()
    tested.write_bytes(base.read_bytes())
    with pytest.raises(InputError, match="other weights than those that were brought"):
        probes.prompts(brought, device="cpu")
    tested.write_bytes(planted)


# ---- prompts

def test_the_own_prompts_give_what_the_model_itself_gives_and_others_what_it_says_to_them(smoke_copy):
    probes.prompts(smoke_copy, ["base"], **FEW)
    found, forget = by_place(smoke_copy, "prompts"), data.subset(data.load_saved(smoke_copy.data_dir).forget, 2, 0)
    people = persons.persons(forget)
    about = [item for item in forget if rephrase.part_of(item, people.get(item.document)) == "people"]
    assert of(found, "base", "original", "people") == itself(smoke_copy, "base", about)
    asked = [rephrase.variants(item, people[item.document])["paraphrase 2"] for item in about]
    assert of(found, "base", "paraphrase 2", "people") == itself(smoke_copy, "base", about, asked)
    assert {part: len({place[1] for place in found if place[2] == part}) for part in rephrase.PARTS} == {
        "people": 9, "questions": 5, "completions": 5}


# ---- what cannot be probed

@pytest.mark.parametrize(("probe", "odd", "words"), [
    ("relearning", {"steps": 0}, "steps; got 0"), ("relearning", {"on": "holdout"}, "on; got holdout"),
    ("relearning", {"share": 1.0}, "share; got 1.0"), ("relearning", {"lr": 0.0}, "lr; got 0.0"),
    ("relearning", {"lr": float("nan")}, "lr; got nan"), ("relearning", {"batch": 0}, "batch; got 0"),
    ("relearning", {"documents": 1}, "no task with two documents in forget"),
    ("quantisation", {"group": 0}, "group; got 0"), ("quantisation", {"documents": -1}, "documents; got -1"),
    ("prompts", {"seed": -1}, "seed; got -1")])
def test_settings_that_measure_nothing_are_refused(smoke_run, probe, odd, words):
    with pytest.raises(InputError, match=words):
        getattr(probes, probe)(smoke_run, device="cpu", **odd)
    assert smoke_run.probes() == []


@pytest.mark.parametrize("probe", probes.SETTINGS)
def test_a_run_without_weights_is_refused(recorded_run, probe):
    with pytest.raises(InputError, match=r"got no weights of merged, base; .* recorded runs come without weights"):
        getattr(probes, probe)(recorded_run, device="cpu")


def test_deleted_adapters_and_unknown_models_are_refused(smoke_copy):
    with pytest.raises(InputError, match="got nobody; expected one of untrained, base"):
        probes.probed(smoke_copy, ["nobody"])
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    with pytest.raises(InputError, match="got no weights of merged"):
        probes.probed(smoke_copy)
    assert probes.probed(smoke_copy, ["model_1"]) == ["model_1"]
    shutil.rmtree(smoke_copy.full_model_dir("untrained"))
    with pytest.raises(InputError, match="got no weights of untrained"):
        probes.probed(smoke_copy, ["untrained"])


def test_a_retrained_model_is_the_control_where_there_is_one(smoke_copy):
    shutil.copytree(smoke_copy.full_model_dir("untrained"), smoke_copy.full_model_dir("retrained"))
    assert probes.probed(smoke_copy) == ["merged", "base", "retrained"]
    shutil.rmtree(smoke_copy.model_dir("retrained"))
    shutil.rmtree(smoke_copy.full_model_dir("untrained"))
    assert probes.probed(smoke_copy) == ["merged", "base"]


def test_a_run_that_forgets_nothing_is_refused(smoke_copy):
    (smoke_copy.data_dir / "forget.jsonl").write_text("")
    with pytest.raises(InputError, match="got nothing that is to be forgotten"):
        probes.prompts(smoke_copy, device="cpu")


# ---- from outside

def test_the_command_prints_what_it_measured_and_refuses_settings_of_another_probe(smoke_copy, capsys):
    run = str(smoke_copy.path)
    assert cli.main(["probe", run, "quantisation", "--models", "base", "--documents", "1", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 2 * len(MEASURES)
    row = smoke_copy.probe("quantisation")["rows"][3]
    assert lines[3].split() == ["base", "fp", "forget", "probability", f"{row['value']:.3f}", f"[{row['low']:.3f},",
                                f"{row['high']:.3f}],", "n", "=", "3"]
    assert cli.main(["probe", run, "prompts", "--steps", "5"]) == 2
    assert "probe prompts; got --steps" in capsys.readouterr().err


def test_a_job_probes_a_run_and_leaves_its_state_as_it_was(smoke_copy):
    with pytest.raises(InputError, match="device; got cuda:9"):
        jobs.measure(smoke_copy, "probe", ["prompts"], device="cuda:9")
    jobs.measure(smoke_copy, "probe", ["quantisation", "--models", "base", "--documents", "1"], device="cpu")
    ends = time.monotonic() + 120
    while smoke_copy.job()["ended"] is None and time.monotonic() < ends:
        time.sleep(0.1)
    assert smoke_copy.job()["exit_code"] == 0, smoke_copy.log_tail()
    assert smoke_copy.status()["state"] == "finished"
    assert len(by_place(smoke_copy, "quantisation")) == 3 * 2 * len(MEASURES)
