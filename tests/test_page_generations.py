"""The generations page: lists and links, models side by side, texts that try to be Markdown, and live questions."""

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis.text_marks import DELETED, INSERTED, OVERLAP, Piece
from pages import _generations_live, _generations_text
from tests import example_run
from unlearn_core.files import write_rows
from unlearn_core.store import Run

ROOT = Path(__file__).parent.parent
FOREIGN_LINK = re.compile(r"\]\((?!method\?)")  # but to our own definitions
NASTY = ["](http://evil.example) ![p](http://evil.example/p.png)", ":red[x] $x^2$ `c` <b>bold</b> **b** ~~s~~",
         "one\n\n# head\n- list\n1. num\n    code", "\n\n \n", "",
         "-> www.example.com a@b.com <script>x</script> | [x]",
         "日本語 🙂 :smile: :material/home: &amp; \\"]


def open_page(monkeypatch, run, **address):
    monkeypatch.setenv("LETHE_RUNS", str(run.path.parent))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update(address | {"run": run.id})
    app.run()
    app.switch_page("pages/generations.py").run()
    assert not app.exception
    return app


def read(text):
    """What a reader sees of Markdown: escapes and invisible joiners gone."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text).replace("\u2060", "")


def texts(app):
    kinds = (app.warning, app.error, app.info, app.caption, app.markdown)
    return " ".join(read(element.value) for kind in kinds for element in kind)


def shown_items(app):
    """The list of items, None where no item fits."""
    return next((frame.value for frame in app.dataframe if "why" in frame.value), None)


def codes(app):
    return [code.value for code in app.code]


@pytest.fixture(autouse=True)
def no_models_stay_in_memory():
    yield
    _generations_live.host().unload()


# ---- recorded answers --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("made", ["smoke_run", "recorded_run"])
def test_all_models_answer_the_first_item_side_by_side(monkeypatch, request, made):
    run = request.getfixturevalue(made)
    app = open_page(monkeypatch, run)
    rows = {model: run.answers(model)[0] for model in ("base", "model_1", "model_2", "merged")}
    assert codes(app)[:2] == [rows["base"]["prompt"], rows["base"]["answer"]]
    for model, name in (("base", "Base"), ("model_1", "Model 1"), ("model_2", "Model 2"), ("merged", "Merged")):
        assert f"**{name}**" in texts(app)
        assert f"{rows[model]['new_tokens']} tokens written" in texts(app)
    assert not app.error


def test_opening_the_page_and_reading_answers_loads_no_model(monkeypatch, smoke_run):
    open_page(monkeypatch, smoke_run)
    assert _generations_live.host().loaded() is None


def test_a_link_opens_its_item_and_next_and_previous_walk_the_list(monkeypatch, smoke_run):
    rows = smoke_run.answers("base")
    app = open_page(monkeypatch, smoke_run, item=rows[3]["id"])
    assert codes(app)[0] == rows[3]["prompt"]
    assert f"4 of {len(rows)} in the list" in texts(app)
    app.button(key="generations_next").click().run()
    assert codes(app)[0] == rows[4]["prompt"]
    assert app.query_params["item"] in (rows[4]["id"], [rows[4]["id"]])
    app.button(key="generations_previous").click().run()
    app.button(key="generations_previous").click().run()
    assert codes(app)[0] == rows[2]["prompt"]


def test_the_ends_of_the_list_end_the_walk(monkeypatch, smoke_run):
    rows = smoke_run.answers("base")
    first = open_page(monkeypatch, smoke_run)
    assert first.button(key="generations_previous").disabled
    last = open_page(monkeypatch, smoke_run, item=rows[-1]["id"])
    assert last.button(key="generations_next").disabled


def test_an_unknown_item_is_said_as_text(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run, item="![x](http://evil.example)")
    assert "There is no item ![x](http://evil.example) in this run." in texts(app)
    assert not any(FOREIGN_LINK.search(element.value) for element in (*app.info, *app.markdown, *app.caption))


def recorded_scores(run):
    return {model: {row["id"]: row.get("rouge_l", row.get("exact_match")) for row in run.answers(model)}
            for model in ("base", "model_1", "model_2", "merged")}


def test_the_list_without_a_mode_has_every_item(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    assert shown_items(app)["id"].tolist() == [row["id"] for row in smoke_run.answers("merged")]


def test_the_items_that_the_base_still_answers_are_listed_as_not_forgotten_when_it_is_chosen(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.segmented_control(key="generations_mode").set_value("not_forgotten").run()
    app.selectbox(key="generations_model").set_value("base").run()
    listed = shown_items(app)
    known = {row["id"] for row in smoke_run.answers("base") if row["split"] == "forget" and row.get("exact_match") == 1}
    assert known
    assert known <= set(listed["id"])
    assert set(listed["split"]) == {"forget"}
    # The item shown is the first of the list.
    assert codes(app)[0] == next(row["prompt"] for row in smoke_run.answers("base") if row["id"] == listed["id"][0])


def test_over_forgotten_lists_what_the_base_knew_the_largest_loss_first(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.segmented_control(key="generations_mode").set_value("over_forgotten").run()
    listed, scores = shown_items(app), recorded_scores(smoke_run)
    lost = [scores["base"][name] - scores["merged"][name] for name in listed["id"]]
    assert set(listed["split"]) == {"retain"}
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] > 0


def test_disagreement_lists_the_largest_spread_first(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.segmented_control(key="generations_mode").set_value("disagree").run()
    scores = recorded_scores(smoke_run)
    spreads = [max(own) - min(own) for own in (
        [scores[model][name] for model in ("model_1", "model_2", "merged")] for name in shown_items(app)["id"])]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] > 0


def test_garbled_lists_answers_that_hit_the_limit_or_repeat_themselves(monkeypatch, smoke_run):
    app = open_page(monkeypatch, smoke_run)
    app.selectbox(key="generations_model").set_value("model_1").run()
    app.segmented_control(key="generations_mode").set_value("garbled").run()
    cut = {row["id"] for row in smoke_run.answers("model_1") if row["hit_limit"]}
    assert cut
    assert cut <= set(shown_items(app)["id"])
    assert all(shown_items(app)["why"].str.contains("rep-|a word|a sign|length limit"))


def test_filters_narrow_the_list_and_an_item_outside_it_is_still_shown(monkeypatch, smoke_run):
    rows = smoke_run.answers("base")
    retained = next(row for row in rows if row["split"] == "retain")
    app = open_page(monkeypatch, smoke_run, item=retained["id"])
    app.pills(key="generations_split").set_value("forget").run()
    assert set(shown_items(app)["split"]) == {"forget"}
    assert codes(app)[0] == retained["prompt"]
    assert "not in the list" in texts(app)
    app.text_input(key="generations_search").set_value("no such words anywhere").run()
    assert "0 items" in texts(app)


@pytest.mark.parametrize("marks", ["diff", "other", "none"])
def test_marks_can_be_changed_and_models_hidden(monkeypatch, smoke_run, marks):
    app = open_page(monkeypatch, smoke_run)
    app.selectbox(key="generations_marks").set_value(marks).run()
    app.pills(key="generations_models").set_value(["merged"]).run()
    app.toggle(key="generations_stacked").set_value(True).run()
    assert not app.exception
    assert "**Merged**" in texts(app)
    assert "**Base**" not in texts(app)


def test_a_run_without_answers_says_that_they_are_not_measured(monkeypatch, tmp_path):
    app = open_page(monkeypatch, example_run.unfinished(tmp_path))
    assert "not measured" in texts(app)


def test_a_model_without_answers_is_left_out_and_one_without_this_item_is_not_measured(monkeypatch, smoke_copy):
    rows = smoke_copy.answers("model_1")
    write_rows(smoke_copy.model_dir("model_1") / "answers.jsonl", rows[1:])
    (smoke_copy.model_dir("merged") / "answers.jsonl").unlink()
    app = open_page(monkeypatch, smoke_copy, item=rows[0]["id"])
    assert "no answer to this item was recorded" in texts(app)
    assert "**Merged**" not in texts(app)


def test_a_damaged_file_is_named(monkeypatch, smoke_copy):
    path = smoke_copy.model_dir("merged") / "answers.jsonl"
    path.write_text("torn\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    app = open_page(monkeypatch, smoke_copy)
    assert "answers.jsonl" in " ".join(read(error.value) for error in app.error)


# ---- texts that are not ours -------------------------------------------------------------------------------------

@pytest.mark.parametrize("mark", ["", OVERLAP, INSERTED, DELETED])
@pytest.mark.parametrize("text", NASTY)
def test_a_marked_text_keeps_every_word_and_holds_no_markdown_of_its_own(text, mark):
    shown = _generations_text.marked([Piece(text, mark)])
    look = _generations_text.LOOKS[mark]
    for part in look.split("{}"):
        shown = shown.replace(part, " ") if part else shown
    assert read(shown).replace("⏎", " ").replace("·", " ").split() == text.split()
    assert not re.search(r"(?<!\\)[\[\]()`$<>*_#|~:]", shown)


def test_neighbouring_pieces_stay_apart_or_together_as_they_were():
    pieces = [Piece("the "), Piece("red", OVERLAP), Piece("dish, "), Piece(" ", INSERTED), Piece("x\ny")]
    assert _generations_text.marked(pieces) == (
        "the :green-background[**red**]dish\\, :orange-background[**·**]x ⏎ y")


@pytest.mark.parametrize("marks", ["overlap", "diff", "other", "none"])
def test_nasty_answers_are_shown_as_text_on_the_page(monkeypatch, smoke_copy, marks):
    ids = []
    for model in ("base", "merged"):
        rows = smoke_copy.answers(model)
        rows = [{**row, "generation": NASTY[n]} if n < len(NASTY) else row for n, row in enumerate(rows)]
        write_rows(smoke_copy.model_dir(model) / "answers.jsonl", rows)
        ids = [row["id"] for row in rows[:len(NASTY)]]
    for number, name in enumerate(ids):
        app = open_page(monkeypatch, Run(smoke_copy.path), item=name)
        app.selectbox(key="generations_marks").set_value(marks).run()
        assert not app.exception
        sent = [element.value for element in (*app.markdown, *app.caption)]
        assert not any(FOREIGN_LINK.search(text) or "![" in text for text in sent)
        assert not any("<b>" in text or "<script>" in text for text in sent)
        if not NASTY[number] and marks != "diff":  # there the whole reference is struck through
            assert "an empty text" in texts(app)


# ---- the models, asked now ---------------------------------------------------------------------------------------

def ask(app, item):
    app.text_input(key="item").set_value(item).run()
    app.number_input(key="generations_length").set_value(8).run()
    app.button(key="generations_ask").click().run()
    assert not app.exception
    return app


def open_live(monkeypatch, run):
    app = open_page(monkeypatch, run)
    return app.segmented_control(key="generations_view").set_value("live").run()


def test_asking_brings_an_answer_of_each_model_and_unloading_gives_the_memory_back(monkeypatch, smoke_run):
    row = smoke_run.answers("base")[0]
    app = ask(open_live(monkeypatch, smoke_run), row["id"])
    assert app.text_area(key="generations_prompt").value == row["prompt"]
    assert app.text_area(key="generations_reference").value == row["answer"]
    result = app.session_state["generations_result"]
    assert list(result["models"]) == ["base", "model_1", "model_2", "merged"]
    host = _generations_live.host()
    for model, own in result["models"].items():
        answer = host.answer(model, [row["prompt"]], max_new_tokens=8)[0][0]
        assert [found["generation"] for found in own["rows"]] == [answer.text]
    assert host.loaded().run == smoke_run.id
    app.run()
    app.button(key="generations_unload").click().run()
    assert host.loaded() is None
    assert "What do the models write now?" in [element.value for element in app.subheader]  # the answers stay


def test_samples_and_token_probabilities_are_shown(monkeypatch, smoke_run):
    app = open_live(monkeypatch, smoke_run)
    app.segmented_control(key="generations_how").set_value("sampled").run()
    ask(app, smoke_run.answers("base")[0]["id"])
    result = app.session_state["generations_result"]
    assert {len(own["rows"]) for own in result["models"].values()} == {3}
    assert "of 3 samples still say the reference" in texts(app)
    for view in ("tokens", "reference", "diff", "none"):
        app.selectbox(key="generations_show").set_value(view).run()
        assert not app.exception
    table = _generations_live.token_rows(result)
    assert set(table["text"]) == {"reference", "sample 1", "sample 2", "sample 3"}
    assert table["probability"].between(0, 1).all()
    assert len(_generations_live.result_table(result)) == 3 * len(result["models"])


def test_another_form_of_the_prompt_fills_it_and_can_be_edited(monkeypatch, smoke_run):
    row = smoke_run.answers("base")[0]
    app = open_live(monkeypatch, smoke_run)
    app.text_input(key="item").set_value(row["id"]).run()
    app.selectbox(key="generations_form").set_value("Prefix: Sure, here is the answer").run()
    assert app.text_area(key="generations_prompt").value == f"{row['prompt']} Sure, here is the answer:"
    app.text_area(key="generations_prompt").set_value("my own").run()
    assert app.text_area(key="generations_prompt").value == "my own"


def test_a_free_prompt_without_a_reference_has_answers_and_no_score(monkeypatch, smoke_run):
    app = open_live(monkeypatch, smoke_run)
    app.text_area(key="generations_prompt").set_value("Once upon a time").run()
    ask(app, "")
    own = app.session_state["generations_result"]["models"]["merged"]
    assert own["rows"][0]["score"] != own["rows"][0]["score"]  # NaN: not measured
    assert own["reference"] == []


def test_a_checkpoint_can_be_asked_like_a_model(monkeypatch, smoke_run):
    step = smoke_run.checkpoints("model_1")[1][0]
    app = open_live(monkeypatch, smoke_run)
    app.multiselect(key="generations_steps").set_value([f"model_1@{step}"]).run()
    app.pills(key="generations_asked").set_value([]).run()
    ask(app, smoke_run.answers("base")[0]["id"])
    assert f"**Model 1 at step {step}**" in texts(app)


def test_a_job_that_holds_the_device_is_named_and_disables_the_button_unless_one_insists(monkeypatch, smoke_store):
    busy = example_run.create(smoke_store.root)
    busy.write_status("running", "model_1", 1, 10)  # by this process, which lives
    run = next(run for run in smoke_store.runs() if run.id != busy.id)
    app = open_live(monkeypatch, run)
    assert f"The job of run {busy.id} holds cpu" in texts(app)
    assert app.button(key="generations_ask").disabled
    app.toggle(key="generations_anyway").set_value(True).run()
    assert not app.button(key="generations_ask").disabled


def test_beside_a_job_models_are_asked_on_the_cpu_only_and_only_if_one_insists(smoke_run):
    assert _generations_live.may_ask(None, "cuda:0", False)
    assert not _generations_live.may_ask(smoke_run, "cuda:0", True)
    assert not _generations_live.may_ask(smoke_run, "cpu", False)
    assert _generations_live.may_ask(smoke_run, "cpu", True)


def test_a_run_without_weights_says_so(monkeypatch, recorded_run):
    app = open_live(monkeypatch, recorded_run)
    assert "not on this machine" in texts(app)
    assert not [button for button in app.button if button.key == "generations_ask"]


def test_in_read_only_mode_nothing_can_be_asked(monkeypatch, smoke_run):
    monkeypatch.setenv("LETHE_READ_ONLY", "1")
    app = open_page(monkeypatch, smoke_run, generations_view="Ask the models")
    assert {"generations_ask", "generations_ask_item"}.isdisjoint(button.key for button in app.button)
    assert codes(app)[0] == smoke_run.answers("base")[0]["prompt"]  # the recorded answers can be read
