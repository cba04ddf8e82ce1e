"""Memory and depth from rows made by hand: means over documents, intervals, and what is said of a hidden answer."""

import pandas as pd
import pytest

from analysis import attacks, attacks_figures, documents, intervals, memory
from unlearn_core.store import Run


def text(model, split, document, strength, kind="qa"):
    return {"model": model, "id": f"{document}{strength}", "document": document, "split": split, "task": "Task1",
            "kind": kind, **dict.fromkeys(attacks.TEXT_COLUMNS[6:], 0.0), "extraction_strength": strength,
            "nll": 0.0}


def run_with(tmp_path, lenses):
    """A run whose models have these lenses: {model: {split: [one per document]}}."""
    run = Run(tmp_path / "run")
    for model, splits in lenses.items():
        run.write_evaluation(model, answers=[], documents=[], mmlu=[], scores={}, intervals={}, memory=[
            {"split": split, "document": f"{split}{n}", "lens": lens}
            for split, found in splits.items() for n, lens in enumerate(found)] + [{"split": "retain", "lens": None}])
    return run


def test_a_mean_is_taken_over_documents_and_not_over_answers():
    # document a: (1 + 0) / 2, b: 1, c: 0 -> mean 0.5; over answers it would be 0.5 too but for the fourth one of a
    rows = [text("merged", "forget", "a", 1.0), text("merged", "forget", "a", 0.0), text("merged", "forget", "a", 0.5),
            text("merged", "forget", "b", 1.0), text("merged", "forget", "c", 0.0),
            text("merged", "forget", "c", 0.9, kind="document")]
    found = memory.measures(pd.DataFrame(rows), ["merged"]).set_index("measure").loc["extraction_strength"]
    value, low, high = intervals.mean([0.5, 1.0, 0.0])
    assert (found["value"], found["documents"]) == (pytest.approx(value), 3)
    assert (found["low"], found["high"]) == (max(low, 0), min(high, 1))


def test_what_the_last_layer_hides_is_found_below_it_and_only_where_unseen_answers_are_not(tmp_path):
    hidden = {"forget": [[-8, -1.0, -6], [-8, -1.2, -6.1], [-8, -1.1, -6]], "holdout": [[-8, -4, -6]] * 3}
    generic = {"forget": [[-8, -1.0, -6], [-8, -1.2, -6.1]], "holdout": [[-8, -1.1, -6]] * 2}
    known = {"forget": [[-8, -1.0, -0.1]] * 2, "holdout": [[-8, -4, -6]] * 2}
    run = run_with(tmp_path, {"merged": hidden, "model_1": generic, "base": known})
    found = memory.depth(run, ["base", "model_1", "merged"])
    base, generic_said, said = memory.describe_depth(found)
    assert said == ("Merged: log p -6.03 [-6.18, -5.89] at the end, but log p -1.10 [-1.35, -0.85] after layer 1 of 2, "
                    "where unseen answers have log p -4.00 [-4.00, -4.00]: what the last layers hide is still inside.")
    assert "inside" not in generic_said
    assert "inside" not in base
    figure = attacks_figures.depth_lines(found)
    assert list(figure.data[0].y) == pytest.approx([-8, -1.0, -0.1])
    assert len(figure.data) == 6


def test_layers_that_were_not_read_are_left_out_and_not_drawn_as_nothing(tmp_path):
    run = run_with(tmp_path, {"merged": {"forget": [[-8, None, -1.0, None, -6], [-8, None, -1.2, None, -6]],
                                         "holdout": [[-8, None, -4, None, -6]] * 2}})
    found = memory.depth(run, ["merged"])
    assert found["layer"].tolist() == [0, 2, 4] * 2
    assert memory.inside(found, "merged") == 2


def test_embeddings_far_below_the_layers_do_not_flatten_them(tmp_path):
    near = {"forget": [[-8, -3.0, -1.0], [-8, -4.0, -1.5]], "holdout": [[-8, -4, -6]] * 2}
    far = {split: [[-95, *lens[1:]] for lens in lenses] for split, lenses in near.items()}
    whole, cut = (attacks_figures.depth_lines(memory.depth(run_with(tmp_path / name, {"merged": lenses}), ["merged"]))
                  for name, lenses in (("near", near), ("far", far)))
    assert whole.layout.yaxis.range is None
    assert "below this view" not in whole.layout.xaxis.title.text
    low, high = cut.layout.yaxis.range
    assert -95 < low < -6 < -1 < high
    assert "below this view" in cut.layout.xaxis.title.text


def test_a_run_without_a_lens_has_no_depth(recorded_run):
    assert memory.depth(recorded_run, recorded_run.models()).empty


def test_memory_of_a_real_run_is_told_beside_unseen_texts(smoke_run):
    texts = attacks.texts(smoke_run)
    found = memory.measures(texts, smoke_run.models())
    assert set(found["split"]) == {"forget", "retain", "holdout"}
    assert found[["value", "low", "high"]].stack().between(0, 1).all()
    assert "on texts that it never saw" in memory.describe(found, "base")
    assert memory.describe(found, "nobody") == "nobody: not measured."
    figure = attacks_figures.memory_dots(found)
    assert len(figure.data) == 3 + 9  # the legend, and three measures of three splits


def test_a_document_is_shown_without_personal_data(smoke_run):
    texts = documents.masked(smoke_run)
    person = next(row for row in smoke_run.answers("base") if row["task"] == "Task2" and row["kind"] == "sc")
    assert person["document"] in texts
    assert "[" in texts[person["document"]]
