"""What ablations found, as tables, sentences and a picture."""

import numpy as np
import pandas as pd
import pytest

from analysis import ablations, ablations_figures
from unlearn_core.vocabulary import SUB_SCORES

SUBSET = {"documents_per_task": 2, "seed": 0, "mmlu_limit": -1, "max_new_tokens": 24}


def row(kind, part, draw=0, *, forget, retain, mode="remove", auc=0.5, norm=0.5, leak=0.25):
    scores = {metric.key: forget if metric.key.startswith("forget") else retain for metric in SUB_SCORES}
    return {"kind": kind, "part": part, "mode": mode, "draw": draw, "share": 0.25, "norm_share": norm,
            "leak": leak, "scores": scores | {"mia_auc": auc, "task_aggregate": 0.6}, "intervals": {}}


ROWS = [row("whole", "whole", forget=0.1, retain=0.6, mode="none", norm=1.0),
        row("layer", "0", forget=0.5, retain=0.7), row("layer", "0", 1, forget=0.2, retain=0.7),
        row("layer", "0", 2, forget=0.3, retain=0.8),
        row("layer", "1", forget=0.15, retain=0.65), row("layer", "1", 1, forget=0.1, retain=0.9),
        row("sign", "agree", forget=0.9, retain=0.6, mode="flip")]


@pytest.fixture
def run(smoke_copy):
    smoke_copy.write_ablations(SUBSET | {"rows": ROWS})
    return smoke_copy


def test_each_part_stands_beside_the_range_of_its_random_parts(run):
    frame = ablations.table(run)
    found = ablations.compared(frame, "layer", "remove").set_index("part")
    assert found.loc["0", ["forget", "forget_random", "forget_low", "forget_high"]].tolist() == pytest.approx(
        [0.5, 0.25, 0.2, 0.3])
    assert found.loc["0", "draws"] == 2
    assert ablations.whole(frame)["retain"] == pytest.approx(0.6)
    assert found.loc["0", "label"] == "Layer 0"


def test_what_was_scored_is_offered_in_order(run):
    frame = ablations.table(run)
    assert ablations.kinds(frame) == ["layer", "sign"]
    assert ablations.modes(frame, "layer") == ["remove"]
    assert ablations.modes(frame, "sign") == ["flip"]
    assert ablations.compared(frame, "sign", "flip")["label"].tolist() == ["Both kept, same sign"]
    assert ablations.compared(frame, "sign", "remove").empty


def test_the_words_tell_a_part_from_random_ones_of_its_size(run):
    frame = ablations.table(run)
    words = ablations.describe(ablations.compared(frame, "layer", "remove"), ablations.whole(frame))
    assert words[0] == ("Removing Layer 0 (50% of the norm) brings back most of what was forgotten: +0.400; 2 random "
                        "parts of its size gave +0.100 to +0.200, so this is more than each.")
    assert words[1] == "Nothing that was removed raises the share of people who leak."
    assert words[2].startswith("Removing Layer 0 (50% of the norm) helps retention most: +0.100; 2 random parts")
    assert words[2].endswith("so this is not told from what chance takes out.")


def test_a_run_without_ablations_has_empty_tables(smoke_run):
    frame = ablations.table(smoke_run)
    assert frame.empty
    assert ablations.kinds(frame) == []
    assert ablations.whole(frame).isna().all()


def test_the_picture_has_a_panel_for_the_size_and_one_per_measure(run):
    frame = ablations.table(run)
    rows, base = ablations.compared(frame, "layer", "remove"), ablations.whole(frame)
    figure = ablations_figures.effects(rows, base)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == [ablations_figures.SIZE, *ablations_figures.DRAWN.values()]
    diamonds = [trace for trace in figure.data if trace.name == ablations_figures.PART]
    assert [list(np.round(trace.x, 3)) for trace in diamonds][:2] == [[0.5, 0.15], [0.7, 0.65]]
    assert len(figure.layout.shapes) == 4  # the whole merge in each panel of a measure
    with pytest.raises(ValueError, match="needs the columns"):
        ablations_figures.effects(pd.DataFrame({"label": []}), base)
