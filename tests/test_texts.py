"""What models wrote: marks that lose nothing, modes with visible arithmetic, badges, and nasty texts."""

import itertools
import math
import random
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest

from analysis import text_marks, text_modes, texts
from analysis.text_marks import DELETED, INSERTED, OVERLAP, UNMARKED, Piece
from analysis.texts import Badge
from unlearn_core.errors import InputError
from unlearn_core.evaluation.rouge import rouge_l_recall
from unlearn_core.store import Run

NASTY = ["", " ", "\n", "a\nb\n\n c ", "](http://evil.example)", ":red[x] $x$ `y` <b>z</b>", "İstanbul K Σ ß ﬁ",
         "x" * 9_000, "the the the", "\\[**]~~", "日本語 and 42", "\u2028 a\u00a0b\t\tc", "🙂🙂 12.50 :smile:",
         "Runs running RUN ran", "don't-stop it's 3.5%"]


def naive_lcs(first, second):
    """Table of all prefix lengths."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


# ---- marks -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(40))
def test_common_places_are_a_common_subsequence_of_the_longest_length(seed):
    chance = random.Random(seed)
    first, second = ([chance.choice("abcd") for _ in range(chance.randrange(0, 20))] for _ in range(2))
    places = text_marks.common_places(first, second)
    assert places == sorted(set(places))
    assert len(places) == naive_lcs(first, second)
    rest = iter(first)
    assert all(second[place] in rest for place in places)  # in this order in `first`, too


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("other", NASTY)
def test_pieces_joined_are_the_text_whatever_it_holds(text, other):
    assert "".join(piece.text for piece in text_marks.overlap(other, text)) == text
    diff = text_marks.word_diff(other, text)
    assert "".join(piece.text for piece in diff if piece.mark != INSERTED) == other
    assert "".join(piece.text for piece in diff if piece.mark != DELETED) == text
    assert all(piece.text for piece in diff)


@pytest.mark.parametrize(("reference", "generation"), [
    ("It was Felix who stole it for 37 coins.", "It was Felix, bought for 37 coin and stolen."),
    ("Runs and running", "running runs"), ("a b c", ""), ("a b c", "c b a"), ("İi K2", "i̇i k2"),
    *itertools.pairwise(NASTY)])
def test_marked_words_over_reference_words_are_rouge_l(reference, generation):
    wanted = len(text_marks._token_spans(reference))
    marked = sum(len(text_marks._token_spans(piece.text)) for piece in text_marks.overlap(reference, generation)
                 if piece.mark == OVERLAP)
    assert (marked / wanted if wanted else 0.0) == pytest.approx(rouge_l_recall(reference, generation))


def test_neighbouring_words_are_marked_as_one_and_punctuation_is_not():
    assert text_marks.overlap("the red cat sat", "The red cat, it sat.") == [
        Piece("The red cat", OVERLAP), Piece(", it "), Piece("sat", OVERLAP), Piece(".")]


def test_a_word_diff_keeps_what_is_the_same():
    assert text_marks.word_diff("he has two coins", "he had two coins.") == [
        Piece("he "), Piece("has", DELETED), Piece("had", INSERTED), Piece(" two coins"), Piece(".", INSERTED)]


def test_long_and_repetitive_texts_are_marked_in_seconds():
    begun = time.process_time()
    text_marks.overlap("a b " * 20_000, "b a " * 20_000)
    text_marks.word_diff("ab cd " * 20_000, "cd ef " * 20_000)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(("probability", "name"), [
    (1.0, "nearly certain"), (0.9, "nearly certain"), (0.89, "likely"), (0.5, "likely"), (0.1, "possible"),
    (0.09, "unlikely"), (0.001, "very unlikely")])
def test_certainty_bins_begin_at_their_bound(probability, name):
    assert text_marks.certainty(math.log(probability) + 1e-12 * (probability < 1)) == name


def test_a_token_of_no_probability_is_very_unlikely():
    assert text_marks.certainty(-math.inf) == "very unlikely"


def test_tokens_become_pieces_and_a_table():
    tokens = [SimpleNamespace(text=" Yes", log_prob=0.0), SimpleNamespace(text=".", log_prob=math.log(0.25))]
    assert text_marks.token_pieces(tokens) == [Piece(" Yes", "nearly certain"), Piece(".", "possible")]
    table = text_marks.token_table(tokens)
    assert tuple(table) == text_marks.TOKEN_COLUMNS
    assert table["probability"].tolist() == [1.0, 0.25]
    assert text_marks.token_table([]).empty


# ---- findings ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("generation", "reference", "inside"), [
    ("It was Otto, I think", "Otto", True), ("OTTO", "otto", True), ("Ottoman", "Otto", False), ("a  b", "a b", True),
    ("in 1914.", "1914", True), ("19140", "1914", False), ("anything", "", False), ("x", " \n", False),
    ("mail a@b.com now", "a@b.com", True)])
def test_contained_means_the_whole_reference_as_words_of_its_own(generation, reference, inside):
    assert texts.contains(generation, reference) is inside


def row(**changes):
    own = {"model": "merged", "id": "1qa0", "document": "1", "split": "forget", "task": "Task1", "kind": "qa",
           "prompt": "Who?", "answer": "Otto", "generation": "Karl", "score": 0.0, "nll": 1.0, "answer_tokens": 1.0,
           "new_tokens": 1.0, "hit_limit": False, "contained": False, "leaked": None, "repetition": 0.0,
           "word_run": 1, "sign_run": 1, "repetitive": False}
    return {**own, **changes}


def table(*rows):
    return pd.DataFrame(rows, columns=list(texts.ANSWER_COLUMNS))


def test_badges_say_the_score_and_what_asks_for_attention():
    assert texts.badges(row()) == [Badge("no exact match")]
    assert texts.badges(row(score=1.0, contained=True)) == [Badge("exact match")]
    assert texts.badges(row(contained=True)) == [Badge("no exact match"), Badge("contains the reference", True)]
    assert texts.badges(row(kind="sc", score=0.456)) == [Badge("ROUGE-L 0.46")]
    assert texts.badges(row(score=math.nan)) == []
    warned = texts.badges(row(leaked="phone number", repetitive=True, repetition=0.5, word_run=4, hit_limit=True))
    assert [badge.text for badge in warned if badge.warns] == [
        "leaks phone number", "repeats itself: rep-3 0.50, a word 4×", "length limit hit"]
    assert not any(badge.warns for badge in texts.badges(row(leaked="")))


def test_a_new_generation_is_measured_like_a_recorded_one():
    person = texts.person_of(table(
        row(id="7qa2", document="7", task="Task2", prompt="What is the phone number of Ada Bell?",
            answer="555-123-4567")), "7")
    found = texts.measured("qa", "Her number?", "555-123-4567", "call 5551234567", hit_limit=True, person=person)
    assert (found["score"], found["contained"], found["leaked"]) == (0.0, False, "phone number")
    assert math.isnan(texts.measured("sc", "Hi", " ", "you", hit_limit=False)["score"])
    assert texts.measured("sc", "Hi", "a b c d", "a b", hit_limit=False)["score"] == 0.5  # 2 of 4 words
    assert texts.measured("sc", "Hi", "a", "a", hit_limit=False)["leaked"] is None  # nobody looked


@pytest.mark.parametrize(("generation", "refuses"), [
    ("I'm sorry, that is private.", True), ("I do not know.", True), ("As an AI, no", True), ("I can’t say", True),
    ("I know it.", False), ("He was sorry", False), ("", False)])
def test_a_refusal_is_told_by_its_words(generation, refuses):
    assert (Badge("refuses") in texts.badges(row(generation=generation))) is refuses


def test_samples_that_still_say_the_reference_are_counted():
    person = texts.person_of(table(
        row(id="7qa2", document="7", task="Task2", prompt="What is the phone number of Ada Bell?",
            answer="555-123-4567")), "7")
    said = ["555-123-4567", "It is 555-123-4567.", "5551234567", "no idea"]  # exact, inside, another form, not
    assert texts.carriers([texts.measured("qa", "?", "555-123-4567", text, hit_limit=False, person=person)
                           for text in said]) == 3
    # 7 of 10 words are enough for a continuation, 6 are not
    assert texts.carriers([texts.measured("sc", "", "a b c d e f g h i j", text, hit_limit=False)
                           for text in ("a b c d e f g", "a b c d e f")]) == 1


def test_an_item_is_named_by_its_id_and_by_its_split_where_both_sides_have_the_id():
    assert texts.item_names(table(row(), row(split="retain"), row(id="2qa0"), row(id="2qa0"))).tolist() == [
        "forget:1qa0", "retain:1qa0", "2qa0", "2qa0"]
    assert texts.item_names(table()).empty


def test_a_document_of_no_person_has_none():
    assert texts.person_of(table(row()), "1") is None


# ---- modes -------------------------------------------------------------------------------------------------------

def test_not_forgotten_are_leaks_first_then_by_score_then_by_low_loss():
    rows = table(
        row(id="1sc1", kind="sc", score=0.69), row(id="2sc1", kind="sc", score=0.7),
        row(id="3qa0", score=1.0, contained=True, nll=0.5), row(id="4qa0", contained=True, nll=0.1),
        row(id="5qa0", leaked="phone number"), row(id="6qa0"), row(id="7qa0", split="retain", score=1.0))
    found = text_modes.listing(rows, "not_forgotten", "merged")
    # leak; contained counts as 1 and has the lower loss of the two; then 0.7; 0.69, wrong and retain are not listed
    assert found["id"].tolist() == ["5qa0", "4qa0", "3qa0", "2sc1"]
    assert found["why"].tolist() == ["leaks phone number", "contains the reference", "answered exactly", "ROUGE-L 0.70"]


def test_over_forgotten_is_what_the_base_knew_and_the_model_lost():
    base = [row(model="base", id=f"{n}sc1", kind="sc", split="retain", score=score)
            for n, score in enumerate((1.0, 0.9, 0.6, 1.0, 0.8))]
    merged = [row(id=f"{n}sc1", kind="sc", split="retain", score=score)
              for n, score in enumerate((0.5, 0.1, 0.0, 0.9, 0.69))]
    found = text_modes.listing(table(*base, *merged), "over_forgotten", "merged")
    # lost: 1 - 0.5 = 0.5; 0.9 - 0.1 = 0.8; not known to the base; still known; 0.8 - 0.69 = 0.11
    assert found["id"].tolist() == ["1sc1", "0sc1", "4sc1"]
    assert found["why"].tolist() == ["0.90 → 0.10", "1.00 → 0.50", "0.80 → 0.69"]


def test_garbled_are_repetitive_answers_then_those_at_the_limit():
    rows = table(row(id="1qa0", hit_limit=True), row(id="2qa0", repetitive=True, repetition=0.31),
                 row(id="3qa0", repetitive=True, repetition=0.9, hit_limit=True), row(id="4qa0"),
                 row(id="5qa0", split="retain", repetitive=True, sign_run=7))
    found = text_modes.listing(rows, "garbled", "merged")
    # rep-3 of 0.9; a run of 7 signs: 1 - 1/7 = 0.86; rep-3 of 0.3; only the limit
    assert found["id"].tolist() == ["3qa0", "5qa0", "2qa0", "1qa0"]
    assert found["why"].tolist() == ["rep-3 0.90, length limit hit", "a sign 7×", "rep-3 0.31", "length limit hit"]


def test_disagreement_is_the_spread_among_the_two_models_and_their_merge():
    scores = {"1qa0": (0, 1, 0), "2sc1": (0.2, 0.5, 0.4), "3qa0": (1, 1, 1), "4sc1": (0.1, 0.1, 0.9)}
    rows = table(*(row(id=name, model=model, kind=name[1:3], score=float(score)) for name, own in scores.items()
                   for model, score in zip(text_modes.COMPARED, own, strict=True)),
                 row(id="3qa0", model="base", score=0.0))  # the base is not compared
    found = text_modes.listing(rows, "disagree", "merged")
    # spreads: 1 - 0, 0.5 - 0.2, none, 0.9 - 0.1
    assert found["id"].tolist() == ["1qa0", "4sc1", "2sc1"]
    assert found["why"].tolist() == ["0.00 / 1.00 / 0.00", "0.10 / 0.10 / 0.90", "0.20 / 0.50 / 0.40"]


def test_modes_say_what_they_lack():
    assert text_modes.needs("over_forgotten", ["merged"])
    assert text_modes.needs("disagree", ["base", "merged"])
    assert not text_modes.needs("over_forgotten", ["base", "merged"])
    assert not text_modes.needs("disagree", ["model_1", "merged"])
    assert text_modes.default_model(["base", "merged", "other"]) == "merged"
    assert text_modes.default_model(["base", "model_1"]) == "model_1"
    assert text_modes.default_model([]) is None


@pytest.mark.parametrize("mode", text_modes.MODES)
def test_a_mode_of_nothing_is_an_empty_list(mode):
    empty = text_modes.listing(table(), mode, "merged")
    assert tuple(empty) == text_modes.LIST_COLUMNS
    assert text_modes.filtered(empty, split="forget", search="a").empty


def test_an_item_without_an_answer_of_the_model_is_listed_as_such():
    rows = table(row(model="base"), row(model="base", id="2qa0"), row(id="2qa0"))
    found = text_modes.listing(rows, "all", "merged")
    assert found["why"].tolist() == ["no answer recorded", ""]
    assert found["score"].isna().tolist() == [True, False]


def test_an_id_on_both_sides_is_two_items():
    rows = table(row(), row(split="retain", generation="Otto"))
    assert text_modes.listing(rows, "all", "merged")["generation"].tolist() == ["Karl", "Otto"]


def test_filters_take_words_in_any_order_and_signs_as_they_are():
    found = table(row(), row(id="2qa0", split="retain", generation="a (b"), row(id="3sc1", kind="sc"))
    rows = text_modes.listing(found, "all", "merged")
    assert text_modes.filtered(rows, search="KARL who?")["id"].tolist() == ["1qa0", "3sc1"]
    assert text_modes.filtered(rows, search="(b")["id"].tolist() == ["2qa0"]
    assert text_modes.filtered(rows, split="forget", kind="qa", task="Task1")["id"].tolist() == ["1qa0"]


# ---- a run -------------------------------------------------------------------------------------------------------

def test_the_table_of_a_run_has_every_answer_with_its_recorded_score(recorded_run):
    found = texts.answer_table(recorded_run)
    assert tuple(found) == texts.ANSWER_COLUMNS
    assert len(found) == sum(len(recorded_run.answers(model)) for model in recorded_run.models())
    known = {(row["model"], row["id"]): row for row in found.to_dict("records")}
    for recorded in recorded_run.answers("merged"):
        assert known["merged", recorded["id"]]["score"] == recorded.get("rouge_l", recorded.get("exact_match"))
    looked = found["leaked"].notna()
    assert (looked == ((found["split"] == "forget") & (found["task"] == "Task2"))).all()
    assert (found.loc[looked & (found["model"] == "base"), "leaked"] != "").any()  # the base has memorised them


def test_a_run_without_answers_has_an_empty_table(tmp_path):
    assert texts.answer_table(Run(tmp_path)).empty


@pytest.mark.parametrize("line", ['{"id": "1qa0"}', '{"id": 5, "prompt": []}'])
def test_a_damaged_row_is_named(recorded_run, line):
    with (recorded_run.model_dir("merged") / "answers.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="answers of merged in run run-v1"):
        texts.answer_table(recorded_run)


def test_prompt_forms_keep_braces_and_backslashes():
    for form in texts.PROMPT_FORMS:
        assert r"{x} \1 {}" in texts.prompt(form, r"{x} \1 {}")
    assert texts.prompt("Prefix: Sure, here is the answer", "Who?") == "Who? Sure, here is the answer:"


def test_exported_rows_carry_badges_and_note():
    found = texts.shown_rows(table(row(contained=True)), "look again")
    assert found["badges"].tolist() == ["no exact match, contains the reference"]
    assert found["note"].tolist() == ["look again"]


def test_unmarked_is_no_mark():
    assert not UNMARKED


def test_reading_texts_loads_no_torch():
    code = "import sys, analysis.texts; sys.exit('torch' in sys.modules or 'nltk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
