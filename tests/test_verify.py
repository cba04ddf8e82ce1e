"""verify: an untouched run is equal to itself, and what was changed by hand is found and named."""

import dataclasses
import json
import shutil

import pytest
import torch

from unlearn_core import cli
from unlearn_core.errors import InputError
from unlearn_core.evaluation import score
from unlearn_core.judging import verify
from unlearn_core.merging.task_vectors import Factors, load_adapter, save_adapter
from unlearn_core.vocabulary import OFFICIAL, sub_score_key


def unequal(run):
    """{what: where} of the checks that are not equal."""
    return {check.what: check.where for check in verify.verify(run) if check.equal is False}


def rewritten(run, model, answers, scores=None):
    """The run with other rows of answers of a model; its scores as they were, or others."""
    scores = scores or run.scores()[model]
    run.write_evaluation(model, answers=answers, documents=run.documents(model), mmlu=run.mmlu(model), scores=scores,
                         intervals=run.intervals()[model], memory=run.memory(model), knowledge=run.knowledge(model))
    run.write_scores()


def edited(path, change):
    """A JSON file with its value changed."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_an_untouched_run_is_equal_to_itself_in_everything_that_can_be_checked(smoke_run):
    checks = verify.verify(smoke_run)
    assert [check.what for check in checks if check.equal is None] == ["answers from the models"]
    assert all(check.equal for check in checks[:-1])
    found = {check.what: check.where for check in checks}
    assert found["merged adapter from its parents"] == "14 matrices, to the bit"
    assert found["data files"].startswith("13 files")
    assert {f"{model}: scores from rows" for model in smoke_run.scores()} <= set(found)


def test_a_recorded_run_without_weights_is_checked_as_far_as_it_goes(recorded_run):
    checks = {check.what: check for check in verify.verify(recorded_run)}
    assert checks["merged adapter from its parents"].equal is None
    assert "no adapter of model_1" in checks["merged adapter from its parents"].where
    assert unequal(recorded_run) == {}


# ---- data

def test_changed_missing_and_added_data_files_are_named(smoke_copy):
    with (smoke_copy.data_dir / "forget.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    (smoke_copy.data_dir / "general.jsonl").unlink()
    (smoke_copy.data_dir / "extra.txt").write_text("x")
    assert unequal(smoke_copy)["data files"] == "extra.txt: not recorded; forget.jsonl: changed; general.jsonl: missing"


def test_a_changed_reference_answer_in_the_data_is_found_in_the_hash_and_beside_the_rows(smoke_copy):
    path = smoke_copy.data_dir / "forget.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    text = path.read_text(encoding="utf-8").replace(json.dumps(first["output"]), json.dumps("other"), 1)
    path.write_text(text, encoding="utf-8")
    found = unequal(smoke_copy)
    assert found["data files"] == "forget.jsonl: changed"
    assert f"item forget {first['id']}: no row" in found["merged: rows from the data"]


# ---- answers and scores

def test_a_tampered_answer_is_named(smoke_copy):
    rows = smoke_copy.answers("merged")
    place = next(n for n, row in enumerate(rows) if row["kind"] == "qa" and row["exact_match"] == 0)
    rows[place]["generation"] = rows[place]["answer"]
    rewritten(smoke_copy, "merged", rows)
    assert unequal(smoke_copy) == {"merged: rows from their texts": (
        f"{rows[place]['split']} {rows[place]['id']}: exact_match 0.0, its texts give 1")}


def test_an_answer_tampered_together_with_its_score_no_longer_gives_the_stored_scores(smoke_copy):
    rows = smoke_copy.answers("base")
    row = next(row for row in rows if row[OFFICIAL[row["kind"]]] == 1)
    row |= {"generation": "", OFFICIAL[row["kind"]]: 0.0 if row["kind"] == "sc" else 0}
    rewritten(smoke_copy, "base", rows)
    found = unequal(smoke_copy)
    assert set(found) == {"base: scores from rows", "base: intervals from rows"}
    key = sub_score_key(row["split"], row["kind"], row["task"])
    assert found["base: scores from rows"].startswith(f"{key}: stored")


def test_rows_scores_and_intervals_forged_together_are_beyond_what_can_be_checked_and_that_is_said(smoke_copy):
    rows = [row | {"generation": "", OFFICIAL[row["kind"]]: 0} for row in smoke_copy.answers("base")]
    measured = rows, smoke_copy.documents("base"), smoke_copy.mmlu("base")
    smoke_copy.write_evaluation("base", answers=rows, documents=measured[1], mmlu=measured[2],
                                scores=score.scores(*measured), intervals=score.intervals(*measured))
    smoke_copy.write_scores()
    assert unequal(smoke_copy) == {}
    last = verify.verify(smoke_copy)[-1]
    assert (last.what, last.equal) == ("answers from the models", None)


def test_a_dropped_and_a_doubled_answer_are_named_by_their_items(smoke_copy):
    rows = smoke_copy.answers("merged")
    rewritten(smoke_copy, "merged", [*rows[1:], rows[5]])
    where = unequal(smoke_copy)["merged: rows from the data"]
    assert f"item {rows[0]['split']} {rows[0]['id']}: no row" in where
    assert f"item {rows[5]['split']} {rows[5]['id']}: a row that is not of the data" in where


def test_a_changed_right_option_of_the_quiz_is_found(smoke_copy):
    quiz = smoke_copy.mmlu("merged")
    quiz[0]["correct"] = (quiz[0]["correct"] + 1) % 4
    smoke_copy.write_evaluation(
        "merged", answers=smoke_copy.answers("merged"), documents=smoke_copy.documents("merged"), mmlu=quiz,
        scores=smoke_copy.scores()["merged"], intervals=smoke_copy.intervals()["merged"])
    assert "not of the data" in unequal(smoke_copy)["merged: rows from the data"]


def test_a_score_and_an_interval_changed_in_their_files_are_named(smoke_copy):
    edited(smoke_copy.path / "scores.json", lambda value: value["merged"].update(mia_auc=0.5))
    edited(smoke_copy.path / "intervals.json", lambda value: value["base"].update(mmlu=[0.0, 1.0]))
    found = unequal(smoke_copy)
    assert set(found) == {"merged: scores from rows", "base: intervals from rows"}
    assert found["merged: scores from rows"].startswith("mia_auc: stored 0.5, the rows give ")
    assert found["base: intervals from rows"].startswith("mmlu: stored [0.0, 1.0]")


def test_a_model_that_lost_its_scores_and_rows_without_a_score_are_told(smoke_copy):
    edited(smoke_copy.path / "scores.json", lambda value: value.pop("merged"))
    rows = smoke_copy.answers("model_1")
    del rows[0]["kind"]
    smoke_copy.write_evaluation("model_1", answers=rows, documents=[], mmlu=[], scores={}, intervals={})
    found = unequal(smoke_copy)
    assert "not stored" in found["merged: scores from rows"]
    assert found["model_1: rows"] == "cannot be scored (KeyError: 'kind')"


def test_damaged_rows_are_named_and_the_rest_is_checked_all_the_same(smoke_copy):
    (smoke_copy.model_dir("merged") / "answers.jsonl").write_text("nonsense\n")
    (smoke_copy.model_dir("base") / "samples.jsonl").write_text("[]\n")
    found = unequal(smoke_copy)
    assert set(found) == {"merged: rows", "drawn answers of base: of these weights"}
    assert "answers.jsonl, line 1" in found["merged: rows"]


# ---- weights

def test_a_swapped_merged_adapter_is_found_matrix_by_matrix_and_in_what_was_measured(smoke_copy):
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    shutil.copytree(smoke_copy.adapter_dir("model_2"), smoke_copy.adapter_dir("merged"))
    found = unequal(smoke_copy)
    assert found["merged adapter from its parents"].count("differs by") == verify.MOST_NAMED
    assert found["merged adapter from its parents"].endswith("and 11 more")
    assert found["statistics of weights: of these weights"] == "merged: measured on other weights"


def test_a_swapped_parent_is_named(smoke_copy):
    shutil.rmtree(smoke_copy.adapter_dir("model_1"))
    shutil.copytree(smoke_copy.checkpoint_dir("model_1", 0), smoke_copy.adapter_dir("model_1"))
    found = unequal(smoke_copy)
    assert "merged adapter from its parents" in found
    assert found["statistics of signs: of these weights"] == "model_1: measured on other weights"


def test_one_changed_entry_is_found_and_rounding_is_not_a_difference(smoke_copy):
    merged = load_adapter(smoke_copy.adapter_dir("merged"))
    name, factors = next((name, one) for name, one in merged.modules.items() if one.B.abs().max() > 0)

    def with_b(b):
        save_adapter(dataclasses.replace(merged, modules=merged.modules | {name: Factors(factors.A, b)}),
                     smoke_copy.adapter_dir("merged"))
        return {check.what: check for check in verify.verify(smoke_copy)}["merged adapter from its parents"]

    rounded = with_b(factors.B * (1 + 1e-6))
    assert rounded.equal
    assert "up to rounding" in rounded.where
    changed = factors.B.clone()
    changed.view(-1)[changed.abs().argmax()] *= 1.01
    assert with_b(changed).where.startswith(f"{name}: differs by")


def test_a_damaged_adapter_is_not_equal_and_a_missing_one_is_not_checked(smoke_copy):
    smoke_copy.adapter_weights()["merged"].write_bytes(b"nothing")
    assert "damaged" in unequal(smoke_copy)["merged adapter from its parents"]
    shutil.rmtree(smoke_copy.adapter_dir("merged"))
    found = {check.what: check for check in verify.verify(smoke_copy)}
    assert found["merged adapter from its parents"].equal is None
    assert found["statistics of weights: of these weights"].where == "merged: its weights are gone"


def test_another_base_is_found_by_the_norms_of_its_matrices(smoke_copy):
    shutil.rmtree(smoke_copy.full_model_dir("base"))
    shutil.copytree(smoke_copy.full_model_dir("untrained"), smoke_copy.full_model_dir("base"))
    assert set(unequal(smoke_copy)) == {"base weights"}


def test_probes_merges_and_samples_of_other_weights_are_stale(smoke_copy):
    keys = smoke_copy.adapter_keys()
    for name, own in (("quantisation", keys), ("depth", keys | {"merged": "0" * 64})):
        smoke_copy.write_probe(name, {"adapters": own, "base": smoke_copy.base_key()}, [])
    smoke_copy.write_probe("prompts", {"adapters": keys, "base": "0" * 64}, [])
    about = {"samples": 1, "temperature": 1.0, "top_p": 1.0, "seed": 0, "max_new_tokens": 4, "people": 0}
    smoke_copy.write_samples("merged", [], about | {"key": "0" * 64})
    smoke_copy.write_samples("model_1", [], about | {"key": keys["model_1"]})
    assert unequal(smoke_copy) == {
        "probe depth: of these weights": "merged: measured on other weights",
        "probe prompts: of these weights": "base weights: measured on other weights",
        "drawn answers of merged: of these weights": "merged: measured on other weights"}


def test_a_brought_model_is_held_against_its_hash(smoke_copy):
    brought = {"model": str(smoke_copy.full_model_dir("base")), "adapter": None, "sha256": smoke_copy.base_key(),
               "adapter_sha256": None, "dtype": "F32"}
    smoke_copy.note(brought={"tested": brought})
    found = {check.what: check.equal for check in verify.verify(smoke_copy)}
    assert found["brought models"] is True
    assert "merged adapter from its parents" not in found
    smoke_copy.note(brought={"tested": brought | {"sha256": "0" * 64}})
    assert "other weights than those that were brought" in unequal(smoke_copy)["brought models"]


# ---- the command

def test_the_command_prints_a_line_for_each_check_and_fails_where_one_is_not_equal(smoke_copy, capsys):
    assert cli.main(["verify", str(smoke_copy.path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing differs"
    edited(smoke_copy.path / "scores.json", lambda value: value["merged"].update(mia_auc=0.5))
    assert cli.main(["verify", str(smoke_copy.path)]) == 1
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("NOT EQUAL")]) == 1
    assert out.splitlines()[-1].startswith("1 of ")


def test_a_run_that_is_still_worked_on_is_refused(smoke_copy):
    smoke_copy.write_status("running", "model_1")
    with pytest.raises(InputError, match="still working"):
        verify.verify(smoke_copy)


def test_verify_does_not_change_the_run(smoke_copy):
    before = {path: path.read_bytes() for path in smoke_copy.path.rglob("*") if path.is_file()}
    verify.verify(smoke_copy)
    assert {path: path.read_bytes() for path in smoke_copy.path.rglob("*") if path.is_file()} == before


def test_distances_are_relative_to_the_size_of_the_recomputed_change(smoke_run):
    merged = load_adapter(smoke_run.adapter_dir("merged"))
    name = max(merged.modules, key=lambda one: merged.modules[one].B.norm())
    doubled = dataclasses.replace(merged, modules={
        name: Factors(merged.modules[name].A, merged.modules[name].B * 2)})
    assert verify._distance(doubled, merged, name) == pytest.approx(1.0)
    zero = dataclasses.replace(merged, modules={name: Factors(merged.modules[name].A,
                                                              torch.zeros_like(merged.modules[name].B))})
    assert verify._distance(zero, zero, name) == 0.0
    assert verify._distance(merged, zero, name) == float("inf")
