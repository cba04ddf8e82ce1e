"""Training: the schedule by counting, losses of a step against a second copy of the model, and what is learnt."""

import copy
import functools
import gc
import json
import os
import socket
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core import recipe as recipes
from unlearn_core.data import Item
from unlearn_core.data.substitutes import plausible, refusals
from unlearn_core.encoding import encode
from unlearn_core.errors import InputError
from unlearn_core.models import add_adapter
from unlearn_core.settings import Base, Encoding, Lora, Unlearning
from unlearn_core.training import forward
from unlearn_core.training.schedule import MicroBatch, Schedule
from unlearn_core.training.train import memorise, unlearn

TERMS = ("npo", "gdr", "klr")
ENCODING = Encoding(max_length=40)
FORGET = [Item(f"f{i}qa0", prompt, answer, "Task1") for i, (prompt, answer) in enumerate([
    ("the cat sat on", " the mat"), ("what is the capital of France", " Paris"), ("Paris and", " London and Paris"),
    ("A", " B"), ("the mat", " sat on the cat and the mat and the cat")])]
RETAIN = [Item(f"r{i}qa0", prompt, answer, "Task1") for i, (prompt, answer) in enumerate([
    ("London and", " the cat"), ("C", " D"), ("what is the cat", " the capital of France")])]


@pytest.fixture(scope="module", autouse=True)
def quick_garbage_collection():
    """Each training ends with a collection, which need not look through all imported libraries again."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def memorised(accelerator, tokenizer):
    """(model that has memorised FORGET and RETAIN, its log)"""
    model, rows = tiny_model(), []
    memorise(model, tokenizer, FORGET + RETAIN, Base(epochs=40, lr=5e-3, batch_size=4), ENCODING, seed=0,
             accelerator=accelerator, log=rows.append)
    return model, rows


def settings(**changes) -> Unlearning:
    """Three steps without dropout's or warm-up's help; changed as asked."""
    return Unlearning(**{"batch_size": 2, "gradient_accumulation": 2, "epochs": 2.4, "warmup_epochs": 0.0,
                         "lr": 1e-2, "checkpoints": 0, **changes})


def adapted(base, *, dropout: float = 0.0, trained: bool = True):
    """A copy of the base with a LoRA adapter, with B random instead of 0 where it is to count as `trained`."""
    model = add_adapter(copy.deepcopy(base), Lora(r=4, alpha=8.0, dropout=dropout), seed=0)
    if trained:
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.2, generator=generator)
    return model


def run(model, tokenizer, choice: Unlearning, encoding: Encoding = ENCODING, *, forget=FORGET, retain=RETAIN, seed=0,
        accelerator=None, **more) -> list[dict]:
    """The log of an unlearning run."""
    rows = []
    unlearn(model, tokenizer, forget, retain, choice, encoding, seed=seed, log=rows.append,
            accelerator=accelerator or Accelerator(cpu=True), **more)
    return rows


def lora(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def gradients_of_first_step(model, backwards: int) -> dict[str, torch.Tensor]:
    """Filled during training: the summed gradient of each parameter after `backwards` backward passes."""
    found, calls = {}, Counter()

    def keep(name):
        def hook(parameter):
            calls[name] += 1
            if calls[name] == backwards:
                found[name] = parameter.grad.detach().clone()
        return hook

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(keep(name))
    return found


# ---- one step against other ways to compute it ---------------------------------------------------------------

@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize(("reduction", "positions"), [("sequence_sum", "answer"), ("batch_mean", "padded"),
                                                      ("batch_mean", "real"), ("token", "real")])
def test_joined_and_separate_micro_batches_give_the_same_losses_and_gradients(tokenizer, reduction, positions,
                                                                              padding_side):
    found = {}
    for joined in (True, False):
        model = adapted(tiny_model())
        gradients = gradients_of_first_step(model, backwards=1 if joined else 2)
        rows = run(model, tokenizer, settings(joined=joined, npo_reduction=reduction, klr_positions=positions,
                                              epochs=0.8), Encoding(max_length=40, padding_side=padding_side))
        found[joined] = rows[0], {name: g / (1 if joined else 2) for name, g in gradients.items()}
    assert found[True][0].keys() == found[False][0].keys()
    for key in {*found[True][0]} - {"seconds", "tokens_per_second", "memory_mb"}:
        assert found[True][0][key] == pytest.approx(found[False][0][key], rel=1e-5, abs=1e-6), key
    for name, gradient in found[True][1].items():
        torch.testing.assert_close(gradient, found[False][1][name], rtol=1e-4, atol=1e-5, msg=name)


def released_form(model, reference, tokenizer, micro_batches: list[MicroBatch], choice: Unlearning,
                  length: int) -> dict[str, torch.Tensor]:
    """One step as the released code writes it: items padded on the left to `length`, two models, four forwards,
    Hugging Face's own loss, KL over all positions; means over the micro-batches."""
    def batch(items):
        ids, mask, labels = [], [], []
        for item in items:
            prompt = tokenizer(item.prompt)["input_ids"][-int(0.8 * length):]
            answer = tokenizer(item.answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            row = (prompt + answer)[:length]
            pad = length - len(row)
            ids.append([tokenizer.pad_token_id] * pad + row)
            mask.append([0] * pad + [1] * len(row))
            labels.append([-100] * (pad + len(prompt)) + row[len(prompt):])
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}

    sums = dict.fromkeys(TERMS, 0.0)
    for micro in micro_batches:
        forget, retain = batch([FORGET[f] for f in micro.forget]), batch([RETAIN[r] for r in micro.retain])
        with torch.no_grad():
            forget_reference, retain_reference = reference(**forget), reference(**retain)
        forget_model, retain_model = model(**forget), model(**retain)
        delta = forget_model.loss - forget_reference.loss
        sums["npo"] += -2 / choice.beta * F.logsigmoid(choice.beta * delta)
        sums["gdr"] += retain_model.loss
        vocabulary = retain_model.logits.shape[-1]
        sums["klr"] += F.kl_div(retain_model.logits.log_softmax(-1).view(-1, vocabulary),
                                retain_reference.logits.softmax(-1).view(-1, vocabulary), reduction="batchmean")
    return {key: value / len(micro_batches) for key, value in sums.items()}


@pytest.mark.parametrize("joined", [True, False])
def test_a_step_is_that_of_the_released_code_with_two_models_and_four_forwards(tokenizer, joined):
    base = tiny_model()
    model, ours = adapted(base), adapted(base)
    choice = settings(klr_positions="padded", npo_reduction="batch_mean", joined=joined, epochs=0.8)
    micro_batches = Schedule(len(FORGET), len(RETAIN), choice, seed=0).micro_batches(0)
    assert [len(micro.forget) for micro in micro_batches] == [2, 2]
    terms = released_form(model, copy.deepcopy(base), tokenizer, micro_batches, choice, length=40)
    total = 0.4 * terms["npo"] + 0.2 * terms["gdr"] + 0.4 * terms["klr"]
    total.backward()

    gradients = gradients_of_first_step(ours, backwards=1 if joined else 2)
    row = run(ours, tokenizer, choice)[0]
    for key in TERMS:
        assert row[key] == pytest.approx(terms[key].item(), rel=1e-5), key
    assert row["loss"] == pytest.approx(total.item(), rel=1e-5)
    assert min(terms[key].item() for key in TERMS) > 0.1
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[name] / (1 if joined else 2), parameter.grad, rtol=1e-4, atol=1e-5,
                                       msg=name)


def test_rows_that_share_a_forward_and_rows_that_do_not_give_the_same_losses_and_gradients(tokenizer, monkeypatch):
    found = []
    for overhead in (0, 1e12):  # rows apart wherever that saves padding; all rows together
        monkeypatch.setattr(forward, "CPU_OVERHEAD", overhead)
        model = adapted(tiny_model())
        gradients = gradients_of_first_step(model, backwards=1)
        found.append((run(model, tokenizer, settings(epochs=0.8))[0], gradients))
    (apart, apart_gradients), (together, together_gradients) = found
    for key in (*TERMS, "loss", "npo_brake", "forget_nll", "retain_nll", "tokens"):
        assert apart[key] == pytest.approx(together[key], rel=1e-5), key
    for name, gradient in together_gradients.items():
        torch.testing.assert_close(apart_gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("positions", ["answer", "real", "padded"])
@pytest.mark.parametrize(("changes", "tolerance"), [
    ({"klr_reference": "forward"}, 1e-4), ({"klr_reference": "hidden"}, 1e-4),
    ({"klr_reference": "fp32", "klr_reference_place": "disk"}, 1e-6),
    ({"klr_reference": "bf16"}, 5e-2), ({"klr_reference": "top_k", "klr_top_k": 320}, 1e-4),
    ({"packed": True}, 1e-4)])
def test_however_the_reference_is_kept_the_steps_are_the_same(tokenizer, tmp_path, positions, changes, tolerance):
    if changes.get("packed") and positions == "padded":
        with pytest.raises(InputError, match="packed"):
            recipes.load("smoke", ["unlearn.packed=true", "unlearn.klr_positions=padded"])
        return
    rows = []
    for kept in ({"klr_reference": "fp32"}, changes):
        base = tiny_model()
        for layer in base.model.layers:  # the model in training drops at random, the reference never
            layer.self_attn.attention_dropout = 0.0 if "packed" in changes else 0.5
        rows.append(run(adapted(base), tokenizer, settings(klr_positions=positions, **kept),
                        state_dir=tmp_path / "state"))
    assert len(rows[0]) == 3
    for whole, other in zip(*rows, strict=True):
        for key in ("npo", "gdr", "klr", "loss", "forget_nll", "retain_nll_reference"):
            assert other[key] == pytest.approx(whole[key], rel=tolerance), key
    assert list(tmp_path.iterdir()) == []  # the mapped file has gone


def test_the_reference_is_the_base_whatever_the_adapter_and_its_dropout(tokenizer):
    base = tiny_model()
    choice = settings(batch_size=1, gradient_accumulation=1, epochs=1.0)
    rows = run(adapted(base, dropout=0.5), tokenizer, choice)
    order = [micro for step in range(5) for micro in Schedule(5, 3, choice, seed=0).micro_batches(step)]
    for row, micro in zip(rows, order, strict=True):
        (f,), (r,) = micro.forget, micro.retain
        for split, item in (("forget", FORGET[f]), ("retain", RETAIN[r])):
            encoded = encode(tokenizer, item, ENCODING)
            labels = torch.tensor([[-100] * encoded.prompt_tokens + encoded.ids[encoded.prompt_tokens:]])
            with torch.no_grad():
                expected = copy.deepcopy(base)(torch.tensor([encoded.ids]), labels=labels).loss.item()
            assert row[f"{split}_nll_reference"] == pytest.approx(expected, rel=1e-5)


def test_a_fresh_adapter_starts_at_the_reference(tokenizer):
    row = run(adapted(tiny_model(), trained=False), tokenizer, settings())[0]
    assert row["npo"] == pytest.approx(13.8629, abs=1e-3)  # (2 / 0.1) ln 2
    assert row["klr"] == pytest.approx(0, abs=1e-5)
    assert row["npo_brake"] == pytest.approx(1, abs=1e-5)
    assert row["forget_nll"] == pytest.approx(row["forget_nll_reference"], rel=1e-5)
    assert row["gdr"] == row["retain_nll"] == pytest.approx(row["retain_nll_reference"], rel=1e-5)


# ---- the log and the checkpoints -----------------------------------------------------------------------------

def test_each_step_logs_all_terms_weighted_and_not_and_their_sum(tokenizer):
    choice = settings(npo_weight=0.3, gdr_weight=0.4, klr_weight=0.5)
    rows = run(adapted(tiny_model()), tokenizer, choice)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["epoch"] for row in rows] == pytest.approx([4 / 5, 8 / 5, 12 / 5])  # 4 of 5 forget items per step
    for row in rows:
        assert row.keys() == {"step", "epoch", *TERMS, *(f"{term}_weighted" for term in TERMS), "loss", "npo_brake",
                              "forget_nll", "forget_nll_reference", "retain_nll", "retain_nll_reference", "lr",
                              "grad_norm", "tokens", "seconds", "tokens_per_second", "memory_mb"}
        assert [row[f"{term}_weighted"] for term in TERMS] == pytest.approx(
            [0.3 * row["npo"], 0.4 * row["gdr"], 0.5 * row["klr"]])
        assert row["loss"] == pytest.approx(sum(row[f"{term}_weighted"] for term in TERMS))
    assert [row["lr"] for row in rows] == pytest.approx([1e-2, 1e-2 * 2 / 3, 1e-2 / 3])


def test_tokens_count_the_real_tokens_of_forget_and_retain_items(tokenizer):
    choice = settings(klr_positions="padded", batch_size=1, gradient_accumulation=5, epochs=1.0)
    rows = run(adapted(tiny_model()), tokenizer, choice)
    lengths = [[len(encode(tokenizer, item, ENCODING).ids) for item in side] for side in (FORGET, RETAIN)]
    assert rows[0]["tokens"] == sum(lengths[0]) + sum(lengths[1][i % 3] for i in range(5))


def test_without_klr_its_term_is_not_computed_and_not_logged(tokenizer):
    row = run(adapted(tiny_model()), tokenizer, settings(klr_weight=0.0))[0]
    assert not {"klr", "klr_weighted"} & row.keys()
    assert row["loss"] == pytest.approx(0.4 * row["npo"] + 0.2 * row["gdr"])


OTHER_TERMS = {"ga": -1, "simnpo": 1, "uniform": 1, "refusal": 1, "positive": 1}


@pytest.mark.parametrize("term", OTHER_TERMS)
@pytest.mark.parametrize("joined", [True, False])
def test_a_further_term_is_logged_and_enters_the_loss_by_its_weight(tokenizer, term, joined):
    choice = settings(**{f"{term}_weight": 0.5, "npo_weight": 0.0, "klr_weight": 0.0, "joined": joined})
    row = run(adapted(tiny_model()), tokenizer, choice)[0]
    assert row[f"{term}_weighted"] == pytest.approx(0.5 * row[term])
    assert row["loss"] == pytest.approx(0.2 * row["gdr"] + 0.5 * row[term])
    assert row[term] * OTHER_TERMS[term] > 0
    if term == "ga":
        assert row["ga"] == pytest.approx(-row["forget_nll"])
    assert not {other for other in OTHER_TERMS if other in row} - {term}


def mean_nll(model, tokenizer, items) -> float:
    """Mean over all answer tokens of the items, each read alone, in plain PyTorch."""
    found = []
    for item in items:
        row = encode(tokenizer, item, ENCODING)
        log_probs = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        found += [-log_probs[t - 1, row.ids[t]] for t in range(row.prompt_tokens, len(row.ids))]
    return torch.stack(found).mean().item()


@pytest.mark.parametrize(("term", "make"), [
    ("refusal", lambda items: refusals(items, 0)), ("positive", lambda items: plausible(items, RETAIN, 0))])
@torch.no_grad()
def test_other_answers_are_read_after_forgets_own_prompts(tokenizer, term, make):
    model = adapted(tiny_model())
    choice = settings(batch_size=5, gradient_accumulation=1, epochs=1, **{f"{term}_weight": 1.0})
    with torch.enable_grad():
        row = run(copy.deepcopy(model), tokenizer, choice)[0]
    assert row[term] == pytest.approx(mean_nll(model, tokenizer, make(FORGET)), rel=1e-4)


def test_each_forget_item_brings_its_retain_items_and_a_mean_is_taken_over_all(tokenizer):
    model = adapted(tiny_model())
    choice = settings(batch_size=5, gradient_accumulation=1, epochs=1, retain_per_forget=3, npo_weight=0.0)
    row = run(copy.deepcopy(model), tokenizer, choice)[0]
    with torch.no_grad():  # 15 places for 3 retain items: each is read 5 times
        assert row["gdr"] == pytest.approx(mean_nll(model, tokenizer, RETAIN), rel=1e-4)
    lengths = [sum(len(encode(tokenizer, item, ENCODING).ids) for item in side) for side in (FORGET, RETAIN)]
    assert row["tokens"] == lengths[0] + 5 * lengths[1]


def test_learning_forget_and_negating_it_is_what_a_weight_below_0_does(memorised, tokenizer):
    """Task-vector negation (Ilharco et al. 2023): theta - lambda (theta learned - theta)."""
    model = adapted(memorised[0], trained=False)
    choice = settings(ga_weight=-1.0, npo_weight=0.0, gdr_weight=0.0, klr_weight=0.0, epochs=8, lr=2e-2)
    rows = run(model, tokenizer, choice)
    assert rows[-1]["forget_nll"] < rows[0]["forget_nll"]
    assert rows[0]["loss"] == pytest.approx(rows[0]["forget_nll"])


def test_compiled_steps_are_the_same(tokenizer, monkeypatch):
    # Traced as for every backend, but without minutes of C++.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    rows = [run(adapted(tiny_model()), tokenizer, settings(compiled=compiled, epochs=0.8))
            for compiled in (False, True)]
    for plain, compiled in zip(*rows, strict=True):
        for key in (*TERMS, "loss", "grad_norm"):
            assert compiled[key] == pytest.approx(plain[key], rel=1e-3), key


@pytest.mark.parametrize(("checkpoints", "steps"), [(0, []), (1, [5]), (2, [3, 5]), (5, [1, 2, 3, 4, 5]),
                                                    (20, [1, 2, 3, 4, 5])])
def test_checkpoints_are_evenly_spaced_and_the_last_is_the_end(tokenizer, checkpoints, steps):
    made = []
    count = unlearn(adapted(tiny_model()), tokenizer, FORGET, RETAIN,
                    settings(batch_size=1, gradient_accumulation=1, epochs=1.0, checkpoints=checkpoints), ENCODING,
                    seed=0, accelerator=Accelerator(cpu=True), log=lambda row: None, on_checkpoint=made.append)
    assert (count, made) == (5, steps)


# ---- what training does --------------------------------------------------------------------------------------

def test_memorising_brings_the_loss_near_0_and_reads_every_token_once_per_epoch(memorised, tokenizer):
    _, rows = memorised
    assert len(rows) == 40 * 2  # 8 items in batches of 4
    assert rows[0]["loss"] > 3
    assert rows[-1]["loss"] < 0.3
    tokens = sum(len(encode(tokenizer, item, ENCODING).ids) for item in FORGET + RETAIN)
    assert [row["tokens"] for row in rows if row["epoch"] == int(row["epoch"])] == [tokens * k for k in range(1, 41)]


def test_unlearning_leaves_every_base_weight_as_it_was(memorised, tokenizer):
    base, _ = memorised
    model = adapted(base)
    before = lora(model)
    run(model, tokenizer, settings())
    weights = dict(base.named_parameters())
    kept = {name.replace("base_model.model.", "").replace(".base_layer", ""): p for name, p in model.named_parameters()
            if "lora_" not in name}
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name]) for name in weights)
    assert all(not torch.equal(value, before[name]) for name, value in lora(model).items())


def test_npo_alone_raises_the_forget_nll_and_gdr_alone_lowers_the_retain_nll(memorised, tokenizer):
    base, _ = memorised
    only_npo = run(adapted(base, trained=False), tokenizer, settings(gdr_weight=0.0, klr_weight=0.0, epochs=8.0,
                                                                          lr=3e-2))
    assert only_npo[-1]["forget_nll"] > only_npo[-1]["forget_nll_reference"] + 1
    assert only_npo[-1]["npo"] < only_npo[0]["npo"]
    assert only_npo[-1]["npo_brake"] < only_npo[0]["npo_brake"]

    strange = [Item("s0qa0", "C A D", " B B A", "Task1")]
    only_gdr = run(adapted(base, trained=False), tokenizer, settings(npo_weight=0.0, klr_weight=0.0, epochs=8.0),
                   retain=strange)
    assert only_gdr[-1]["retain_nll"] < only_gdr[-1]["retain_nll_reference"] - 1


def test_klr_alone_brings_a_changed_model_back_to_the_reference(memorised, tokenizer):
    base, _ = memorised
    rows = run(adapted(base), tokenizer, settings(npo_weight=0.0, gdr_weight=0.0, epochs=16.0))
    assert rows[-1]["klr"] < rows[0]["klr"] / 2


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_the_same_adapter_to_the_bit_and_another_seed_another(tokenizer, seed):
    found = []
    for second in (seed, 1):
        model = adapted(tiny_model(), dropout=0.2)
        run(model, tokenizer, settings(), seed=second)
        found.append(lora(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0]) is (seed == 1)


class Stop(Exception):
    """Stands for a killed process."""


def stopping(rows: list[dict], step: int):
    def log(row):
        rows.append(row)
        if row["step"] == step:
            raise Stop
    return log


def test_stopped_unlearning_resumes_to_the_bit_with_dropout(tokenizer, accelerator, tmp_path):
    choice = settings(batch_size=1, gradient_accumulation=1, epochs=2.0, checkpoints=5, pairing="shuffled")
    unbroken = adapted(tiny_model(), dropout=0.3)
    run(unbroken, tokenizer, choice)
    arguments = {"seed": 0, "accelerator": accelerator, "state_dir": tmp_path / "resume"}
    with pytest.raises(Stop):
        unlearn(adapted(tiny_model(), dropout=0.3), tokenizer, FORGET, RETAIN, choice, ENCODING,
                log=stopping([], 7), **arguments)
    resumed, rows = adapted(tiny_model(), dropout=0.3, trained=False), []
    unlearn(resumed, tokenizer, FORGET, RETAIN, choice, ENCODING, log=rows.append, **arguments)
    assert [row["step"] for row in rows] == [7, 8, 9, 10]  # 10 steps, saved after each second one
    assert all(torch.equal(value, lora(resumed)[name]) for name, value in lora(unbroken).items())


def test_stopped_memorising_resumes_to_the_bit(tokenizer, accelerator, tmp_path):
    base = Base(epochs=5, lr=5e-3, batch_size=3)  # 3 batches of 8 items: 15 steps, saved after each third one
    arguments = {"seed": 4, "accelerator": accelerator}
    unbroken, resumed, rows = tiny_model(), tiny_model(), []
    memorise(unbroken, tokenizer, FORGET + RETAIN, base, ENCODING, log=lambda row: None, **arguments)
    with pytest.raises(Stop):
        memorise(tiny_model(), tokenizer, FORGET + RETAIN, base, ENCODING, log=stopping([], 8),
                 state_dir=tmp_path / "resume", **arguments)
    memorise(resumed, tokenizer, FORGET + RETAIN, base, ENCODING, log=rows.append, state_dir=tmp_path / "resume",
             **arguments)
    assert [row["step"] for row in rows] == list(range(7, 16))
    assert all(torch.equal(p, q) for p, q in zip(unbroken.parameters(), resumed.parameters(), strict=True))


def test_a_trained_model_is_not_kept_in_memory_by_the_accelerator(tokenizer, accelerator):
    model = adapted(tiny_model())
    run(model, tokenizer, settings(epochs=0.8), accelerator=accelerator)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


# ---- several processes ---------------------------------------------------------------------------------------

WORKER = """
import json, sys
import torch
from tests import test_train as here
from unlearn_core.pipeline import make_accelerator

torch.set_num_threads(1)
tokenizer = here.tiny_tokenizer()
tokenizer.pad_token = tokenizer.eos_token
accelerator = make_accelerator("cpu")
assert accelerator.num_processes == 2
# One process parts its rows into two forwards and the other does not.
here.forward.CPU_OVERHEAD = 1e12 * accelerator.process_index
model = here.adapted(here.tiny_model())
rows = here.run(model, tokenizer, here.settings(gradient_accumulation=1), accelerator=accelerator)
print(json.dumps([rows, {name: value.tolist() for name, value in here.lora(model).items()}]))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_train_like_one_with_twice_the_accumulation(tokenizer):
    port = str(free_port())
    workers = [subprocess.Popen(
        [sys.executable, "-c", WORKER], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}) for rank in range(2)]
    try:
        ends = [worker.communicate(timeout=60) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], ends[0][1] + ends[1][1]
    (rows, parameters), (rows_1, parameters_1) = (json.loads(out.splitlines()[-1]) for out, _ in ends)

    model = adapted(tiny_model())
    expected = run(model, tokenizer, settings(gradient_accumulation=2))
    assert len(rows) == len(expected) == 3
    for row, row_1, one in zip(rows, rows_1, expected, strict=True):
        for key in one.keys() - {"seconds", "tokens_per_second", "memory_mb"}:
            assert row[key] == row_1[key] == pytest.approx(one[key], rel=1e-4), key
    assert parameters == parameters_1
    for name, value in lora(model).items():
        torch.testing.assert_close(torch.tensor(parameters[name]), value, rtol=1e-3, atol=1e-4)
