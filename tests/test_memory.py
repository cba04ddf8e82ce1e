"""The teacher-forced pass against a naive one text at a time, its properties, and the lens on four architectures."""

import dataclasses
import math
import zlib

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, OlmoConfig, Qwen2Config

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core.data import Dataset, Item
from unlearn_core.evaluation import memory
from unlearn_core.evaluation.likelihood import answer_nll, document_nll

FORGET = [Item("asc1", "the cat sat", " on the mat", "Task1"),
          Item("aqa0", "what is the capital of", " France", "Task1")]
RETAIN = [Item("bsc1", "Paris and", " London", "Task3")]
HOLDOUT = [Item("csc1", "the mat", " sat on the cat and the mat sat on Paris", "Task2")]
DATASET = Dataset(forget=FORGET, retain=RETAIN, holdout=HOLDOUT, general=[], attack=[], mmlu_dev=[], mmlu_test=[])
KINDS = {"llama": (LlamaConfig, {"intermediate_size": 64}), "olmo": (OlmoConfig, {"intermediate_size": 64}),
         "qwen2": (Qwen2Config, {"intermediate_size": 64, "num_key_value_heads": 2}), "neox": (GPTNeoXConfig, {})}


def random_model(kind):
    config, more = KINDS[kind]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
        initializer_range=0.3, tie_word_embeddings=False, pad_token_id=0, bos_token_id=0, eos_token_id=0, **more
    )).eval()


@pytest.fixture(scope="module")
def rows():
    return memory.memory_rows(tiny_model(), tiny_tokenizer(), DATASET)


def naive(model, ids, count, text):
    """Every measure of the last `count` tokens of one text, by its definition, one token at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    log_p, z, hits, entropies = [], [], [], []
    for place in range(len(ids) - count, len(ids)):
        distribution = logits[place - 1].log_softmax(-1)
        p = distribution.exp()
        mean = float((p * distribution).sum())
        spread = math.sqrt(float((p * (distribution - mean) ** 2).sum()))
        log_p.append(float(distribution[ids[place]]))
        z.append((log_p[-1] - mean) / spread)
        hits.append(int(distribution.argmax()) == ids[place])
        entropies.append(-mean)
    least = max(1, int(0.2 * count))
    right = next((k for k in range(count) if all(hits[k:])), count)
    return {"nll": -sum(log_p) / count, "min_k": -sum(sorted(log_p)[:least]) / least,
            "min_k_plus": -sum(sorted(z)[:least]) / least, "zlib": -sum(log_p) / len(zlib.compress(text.encode())),
            "entropy": sum(entropies) / count, "exact_memorisation": sum(hits) / count,
            "extraction_strength": 1 - right / count}


def test_each_row_is_what_its_definition_gives_one_text_at_a_time(rows):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for row, item in zip(rows[:2], FORGET, strict=True):
        answer = tokenizer(item.answer)["input_ids"]
        expected = naive(model, tokenizer(item.prompt)["input_ids"] + answer, len(answer), item.answer)
        assert {name: row[name] for name in memory.MEASURES} == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert row["tokens"] == len(answer)
    whole = tokenizer(FORGET[0].text)["input_ids"]
    expected = naive(model, whole, len(whole) - 1, FORGET[0].text)
    assert {name: rows[2][name] for name in memory.MEASURES} == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_every_split_has_its_answers_and_one_document_each(rows):
    assert [(row["split"], row["kind"], row["id"]) for row in rows] == [
        ("forget", "sc", "asc1"), ("forget", "qa", "aqa0"), ("forget", "document", "a"),
        ("retain", "sc", "bsc1"), ("retain", "document", "b"), ("holdout", "sc", "csc1"), ("holdout", "document", "c")]


def test_the_loss_of_a_document_is_the_official_attacks(rows):
    (official, tokens), = document_nll(tiny_model(), tiny_tokenizer(), [FORGET[0].text])
    assert (rows[2]["nll"], rows[2]["tokens"]) == (pytest.approx(official, rel=1e-5), tokens)


@pytest.mark.parametrize("positions", [64, 9])  # with 9, texts lose their beginnings
def test_answers_and_documents_that_were_led_through_are_not_read_again(positions):
    model, tokenizer, losses, batches = tiny_model(positions=positions), tiny_tokenizer(), {}, []
    memory.memory_rows(model, tokenizer, DATASET, losses=losses)
    pairs, texts = [(item.prompt, item.answer) for item in FORGET + RETAIN], [FORGET[0].text, HOLDOUT[0].text]
    anew = answer_nll(model, tokenizer, pairs) + document_nll(model, tokenizer, texts)
    handle = model.register_forward_pre_hook(lambda *_: batches.append(1))
    known = answer_nll(model, tokenizer, pairs, known=losses) + document_nll(model, tokenizer, texts, known=losses)
    assert batches == []
    for (one, tokens), (other, as_many) in zip(known, anew, strict=True):
        assert (one, tokens) == (pytest.approx(other, rel=1e-5), as_many)
    document_nll(model, tokenizer, ["the cat"], known=losses)
    handle.remove()
    assert batches == [1]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_and_padding_change_nothing(rows, batch_size):
    for one, other in zip(rows, memory.memory_rows(tiny_model(), tiny_tokenizer(), DATASET, batch_size=batch_size),
                          strict=True):
        assert [one[name] for name in memory.MEASURES] == pytest.approx([other[name] for name in memory.MEASURES],
                                                                        rel=1e-4, abs=1e-5)
        assert (one["lens"] or []) == pytest.approx(other["lens"] or [], rel=1e-4)


def sharp(hits):
    """Logits that put almost all on the label where it is a hit, and on another token where it is not."""
    labels = torch.arange(len(hits)) + 1
    logits = torch.zeros(len(hits), 9)
    logits[torch.arange(len(hits)), torch.where(torch.tensor(hits), labels, torch.tensor(0))] = 20.0
    return logits, labels


@pytest.mark.parametrize(("hits", "exact", "extraction"), [
    ([True] * 4, 1.0, 1.0),  # all known from the start: k = 0
    ([False, True, True, True], 0.75, 0.75),  # from the second on: k = 1 of 4
    ([True, True, False, True], 0.75, 0.25),  # one error near the end costs extraction, not memorisation: k = 3
    ([True, True, True, False], 0.75, 0.0),
    ([False] * 4, 0.0, 0.0)])
def test_memorisation_counts_hits_and_extraction_the_tail_that_is_right(hits, exact, extraction):
    found = memory._measures(*sharp(hits), "text")
    assert (found["exact_memorisation"], found["extraction_strength"]) == pytest.approx((exact, extraction))


def test_a_distribution_without_spread_has_no_z_score():
    found = memory._measures(torch.zeros(3, 8), torch.tensor([1, 2, 3]), "text")
    assert found["nll"] == pytest.approx(math.log(8))
    assert found["entropy"] == pytest.approx(math.log(8))
    assert found["min_k_plus"] == 0


def test_a_loss_that_is_no_number_is_not_measured_and_spoils_no_other_text():
    logits, labels = sharp([True, True])
    logits[0, 0] = math.nan
    assert set(memory._measures(logits, labels, "text").values()) == {None}


def test_the_answers_of_forget_and_of_holdout_are_looked_at_in_depth(rows):
    assert [row["id"] for row in rows if row["lens"]] == ["asc1", "aqa0", "csc1"]
    for row in rows[:2]:
        assert len(row["lens"]) == 3  # embeddings, layer 1, layer 2
        assert row["lens"][-1] == pytest.approx(-row["nll"], rel=1e-5)  # the last depth is the model itself


def test_a_deep_model_is_read_at_evenly_spaced_layers_and_at_its_end(rows, monkeypatch):
    assert memory.depths(2) == [0, 1, 2]
    assert memory.depths(12) == list(range(13))
    assert memory.depths(30) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert memory.depths(32) == [*range(0, 31, 3), 32]
    monkeypatch.setattr(memory, "MOST_DEPTHS", 1)  # as if two layers were many
    first, middle, last = memory.memory_rows(tiny_model(), tiny_tokenizer(), DATASET)[0]["lens"]
    assert middle is None
    assert (first, last) == pytest.approx((rows[0]["lens"][0], rows[0]["lens"][2]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_lens_is_the_models_own_end_put_on_each_depth(kind):
    model, tokenizer = random_model(kind), tiny_tokenizer()
    row = memory.memory_rows(model, tokenizer, DATASET)[0]
    ids = tokenizer(FORGET[0].prompt)["input_ids"] + tokenizer(FORGET[0].answer)["input_ids"]
    answer = ids[-row["tokens"]:]
    for depth, found in enumerate(row["lens"]):
        shallow = random_model(kind)
        layers = next(child for child in shallow.base_model.children() if isinstance(child, torch.nn.ModuleList))
        del layers[depth:]  # a model that ends after so many layers
        with torch.no_grad():
            log_p = shallow(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        expected = log_p[-len(answer) - 1:-1].gather(-1, torch.tensor(answer)[:, None]).mean()
        assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_model_without_a_norm_before_its_head_has_no_lens():
    model = tiny_model()
    model.base_model.ending = model.base_model.norm
    del model.base_model.norm
    assert memory.last_norm(model) is None


def test_a_text_without_an_answer_token_and_one_beyond_the_positions():
    empty = Item("dsc1", "the cat sat on the mat", "", "Task1")
    long = Item("esc1", "the cat sat on the mat " * 6, " France", "Task1")
    found = memory.memory_rows(tiny_model(positions=16), tiny_tokenizer(),
                               dataclasses.replace(DATASET, forget=[empty, long], retain=[], holdout=[]))
    assert (found[0]["tokens"], found[0]["nll"], found[0]["lens"]) == (0, None, None)
    assert found[1]["tokens"] == len(tiny_tokenizer()(" France")["input_ids"])
    assert found[2]["tokens"] > 0
    assert found[3]["tokens"] == 15  # the last 16 tokens, the first of which nothing predicts
