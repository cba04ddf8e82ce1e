"""What probes ask before and after: each number equal to the one that the evaluation of a whole run gives."""

import math

import pytest

from unlearn_core import data, run_models
from unlearn_core.data import persons
from unlearn_core.evaluation.recall import MEASURES, recall


@pytest.fixture(scope="module")
def base(smoke_run):
    model, tokenizer = run_models.load(smoke_run, smoke_run.recipe(), "base", "cpu")
    dataset = data.load_saved(smoke_run.data_dir)
    return model, tokenizer, dataset, persons.persons([*dataset.forget, *dataset.retain]), smoke_run.recipe()


def asked(base, items, **changes):
    model, tokenizer, _, people, recipe = base
    rows = recall(model, tokenizer, items, people=people, max_new_tokens=recipe.evaluation.max_new_tokens, **changes)
    return {row["measure"]: row for row in rows}


def test_its_numbers_are_those_of_the_whole_evaluation(base, smoke_run):
    forget = base[2].forget
    found = asked(base, forget, batch_size=5)
    answers = [row for row in smoke_run.answers("base") if row["split"] == "forget"]
    memory = [row for row in smoke_run.memory("base") if row["split"] == "forget" and row["kind"] != "document"]
    for kind, name in (("sc", "rouge_l"), ("qa", "exact_match")):
        own = [row[name] for row in answers if row["kind"] == kind]
        assert found[name]["value"] == pytest.approx(sum(own) / len(own))
    for name, value in (("extraction_strength", lambda row: row["extraction_strength"]),
                        ("probability", lambda row: math.exp(-row["nll"]))):
        assert found[name]["value"] == pytest.approx(sum(map(value, memory)) / len(memory), abs=1e-5)
    assert [row["low"] <= row["value"] <= row["high"] for row in found.values()] == [True] * len(MEASURES)
    assert found["leaking"]["n"] == len({item.document for item in forget if item.task == "Task2"})


def test_other_prompts_change_what_is_generated_and_leave_teacher_forcing_out(base):
    questions = [item for item in base[2].forget if item.kind == "qa"]
    found = asked(base, questions, asked=["" for _ in questions])
    assert found["exact_match"]["value"] < asked(base, questions)["exact_match"]["value"]
    assert (found["probability"]["value"], found["rouge_l"]["n"]) == (None, 0)


def test_nothing_to_ask_is_not_measured(base):
    assert {row["value"] for row in asked(base, []).values()} == {None}
