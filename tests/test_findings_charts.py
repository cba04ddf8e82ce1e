"""The charts of the story: few models each, with the findings' own numbers, in large type, or none."""


from analysis import findings, findings_charts, judging, theme
from analysis.findings_charts import CHARTS, TEXT
from analysis.findings_parts import Facts
from tests import example_run
from tests.test_findings import BEFORE, PARENTS, scored
from unlearn_core.judging.gates import GATES


def chart(run, key):
    return findings_charts.chart(Facts(run), key)


def drawn(figure):
    """{name: (x, y)} of the marks that have a place."""
    return {trace.name: (tuple(trace.x), tuple(trace.y)) for trace in figure.data if len(trace.x)}


def test_every_chart_belongs_to_a_finding():
    assert set(CHARTS) <= set(findings.FOUND)


def test_a_run_without_results_has_no_chart(tmp_path):
    facts = Facts(example_run.create(tmp_path))
    assert {key: findings_charts.chart(facts, key) for key in CHARTS} == dict.fromkeys(CHARTS)


def test_the_attack_is_drawn_for_one_model_more_at_each_step(tmp_path):
    run = scored(tmp_path, BEFORE | PARENTS)
    assert drawn(chart(run, "over").figure) == {
        "Untrained": ((0.5,), ("Untrained",)), "Base": ((0.99,), ("Base",)), "Model 1": ((0.2,), ("Model 1",))}
    assert list(drawn(chart(run, "under").figure)) == ["Untrained", "Base", "Model 1", "Model 2"]
    assert chart(scored(tmp_path / "base", BEFORE), "over") is None


def test_the_merge_stands_at_its_scores_beside_its_parents_alone(tmp_path):
    run = scored(tmp_path, BEFORE | PARENTS | {"merged": (0.2, 0.85, 0.55)})
    places = drawn(chart(run, "merge").figure)
    assert set(places) == {"Model 1", "Model 2", "Merged"}
    assert places["Merged"] == ((run.scores()["merged"]["task_aggregate"],), (0.55,))
    assert chart(scored(tmp_path / "parents", PARENTS), "merge") is None


def test_the_twelve_scores_are_of_the_base_and_a_model_that_never_saw_forget_and_then_of_the_merge(gold):
    assert set(chart(gold, "knew").table["model"]) == {"base", "retrained"}
    given = chart(gold, "forgotten")
    assert set(given.table["model"]) == {"base", "retrained", "merged"}
    assert [title.text for title in given.figure.layout.annotations] == ["Forget: ideal 0", "Retain: ideal 1"]


def test_a_model_without_sub_scores_has_no_place_in_the_legend(tmp_path):
    run = scored(tmp_path, {"base": BEFORE["base"]})
    run.write_evaluation("untrained", answers=[], documents=[], mmlu=[], scores={"mia_auc": 0.5}, intervals={})
    run.write_scores()
    assert {trace.name for trace in chart(run, "knew").figure.data} == {"Base"}


def test_five_attacks_have_a_row_each(gold):
    figure = chart(gold, "missed").figure
    assert [trace.y[0] for trace in figure.data] == ["Loss", "zlib", "Min-K%", "Min-K%++", "Reference"]
    assert [trace.x[0] for trace in figure.data] == chart(gold, "missed").table["auc"].tolist()


def test_what_inner_layers_know_is_drawn_where_the_finding_tells_it(gold, tmp_path):
    run = example_run.create(tmp_path)
    lens = {"forget": [-8.0, -1.0, -6.0], "holdout": [-8.0, -4.0, -6.0]}
    for model in ("base", "merged"):
        rows = [row | {"lens": lens.get(row["split"]) if row["kind"] != "document" else None}
                for row in gold.memory(model)]
        run.write_evaluation(model, answers=[], documents=gold.documents(model), mmlu=[], memory=rows,
                             scores=gold.scores()[model], intervals=gold.intervals()[model])
    run.write_scores()
    shown = chart(run, "missed")
    assert "after each layer" in shown.alt
    assert {trace.name for trace in shown.figure.data} == {"Base", "Merged"}


def test_the_weights_of_the_two_models_are_drawn_but_not_those_that_changed_since(smoke_copy):
    assert set(chart(smoke_copy, "weights").table["model"]) == {"model_1", "model_2"}
    first, second = (smoke_copy.adapter_weights()[model] for model in ("model_1", "model_2"))
    first.write_bytes(second.read_bytes())
    assert chart(smoke_copy, "weights") is None


def test_every_gate_stands_in_the_column_of_its_state(gold, smoke_run):
    for run in (gold, smoke_run):
        facts = Facts(run)
        figure = findings_charts.chart(facts, "verdict").figure
        columns = list(figure.layout.xaxis.ticktext)
        found = {figure.layout.yaxis.ticktext[y]: columns[x] for trace in figure.data
                 for x, y in zip(trace.x, trace.y, strict=True)}
        assert found == {one.gate.label + ("" if one.gate.vetoes else " (informs)"): judging.STATES[one.state]
                         for one in facts.verdict.gates}
        assert len(found) == len(GATES)


def test_type_is_large_and_marks_are_larger_than_elsewhere(gold):
    figure = chart(gold, "knew").figure
    assert figure.layout.font.size == figure.layout.xaxis.tickfont.size == figure.layout.legend.font.size == TEXT
    assert theme.TEMPLATE.layout.font.size < TEXT
    assert {trace.marker.size for trace in figure.data} == {10 * findings_charts.MARKS}
