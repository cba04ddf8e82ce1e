"""How fast the evaluation is beside the released protocol: python -m benchmarks.evaluate [--model demo | 135m]

    official   twelve scores and the attack   against one item at a time: 256 tokens, and a forward more for the loss
    mmlu       letters after five examples    against one full prompt per question
    texts      likelihood of answer texts     against one sequence per option, in batches

Both sides have the same model, items and device, and run in one process, one after the other; their texts, scores,
losses and predictions must be equal, or the benchmark fails. Times are CPU seconds of the process, on a GPU wall
seconds. The released script asks for 256 tokens and leaves it to the model's settings whether an end token ends an
answer before: both are measured. `--run` takes data and base of a finished run. Else weights are random, and every
32nd token ends an answer, for lengths like those of a base that has memorised; with `--ends 0` none does, and what
counts is batching alone. Without `--mmlu` the questions are made up, as long as MMLU's are. They are asked of the 135m
shape, unless `--parts mmlu` says otherwise: the demo scores answer texts, and in so small a model attention outweighs
the rest, of which less is saved.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from unlearn_core import data, models, recipe, run_models
from unlearn_core.batches import by_length, context_length, left_padded
from unlearn_core.data import world
from unlearn_core.data.items import LETTERS, Dataset, Item, Question
from unlearn_core.data.readers import read_mmlu
from unlearn_core.encoding import UNCUT, encode
from unlearn_core.evaluation.evaluate import evaluate
from unlearn_core.evaluation.generation import end_tokens
from unlearn_core.evaluation.likelihood import sequence_nll
from unlearn_core.evaluation.mmlu import PROMPT_TOKENS, answer_questions, choose, letter_prompt
from unlearn_core.evaluation.score import harmonic_mean
from unlearn_core.settings import Evaluation
from unlearn_core.store import Run
from unlearn_core.vocabulary import SC, SUB_SCORES, sub_score_key

NEW_TOKENS, SHOTS, PER_BATCH = 256, 5, 5000  # PER_BATCH: padded tokens in a batch of full prompts
WANTED = {"demo": 15, "135m": 8}  # times the released protocol
WANTED_MMLU = 4
PARTS = {"demo": ["official"], "135m": ["official", "mmlu", "texts"]}
ITEMS = {"demo": 48, "135m": 12}


def main() -> None:
    """Print a table of the sides and a ratio for each of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", choices=list(WANTED), help="shape of the model, random weights")
    parser.add_argument("--run", type=Path, help="a run folder: its data and its base instead (of the demo's shape)")
    parser.add_argument("--ends", type=int, default=32, help="with random weights, one token in so many ends an answer "
                                                             "(default 32; 0: none does)")
    parser.add_argument("--parts", nargs="+", choices=("official", "mmlu", "texts"), help=f"default {PARTS}")
    parser.add_argument("--items", type=int, help="items per split, evenly of tasks and kinds, and twice a third of it "
                                                  f"documents of the attack (default {ITEMS})")
    parser.add_argument("--mmlu", type=Path, default=os.environ.get("MMLU_DIR"), help="folder with dev/ and test/")
    parser.add_argument("--subjects", type=int, default=2, help="subjects of MMLU (default 2)")
    parser.add_argument("--questions", type=int, default=50, help="questions per subject (default 50; MMLU has 246)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    parts = options.parts or PARTS[options.model]
    dev, test = quiz(options.mmlu, options.subjects, options.questions)
    dataset, model, tokenizer = subject_of(options, dev + test)
    print(f"{options.run or f'{options.model}, random weights'}, {model.num_parameters() / 1e6:.1f}M parameters, "
          f"{options.device}, threads: {options.threads}", flush=True)
    if "official" in parts:
        official(options.model, few(dataset, options.items or ITEMS[options.model]), model, tokenizer)
    if "mmlu" in parts:
        letters(model, tokenizer, dev, test)
    if "texts" in parts:
        texts(model, tokenizer, test)


# ---- the twelve scores and the attack ----------------------------------------------------------------------------

@dataclass
class Found:
    """What one side found: generated text and loss by (split, item id), losses of the attack, scores."""

    texts: dict[tuple[str, str], str]
    nll: dict[tuple[str, str], float]
    attack: list[float]
    scores: dict[str, float]
    tokens: int  # generated


def official(name: str, dataset: Dataset, model, tokenizer) -> None:
    """Both ways of the released protocol and ours, and the two ratios."""
    print(f"official evaluation: {len(dataset.forget)} + {len(dataset.retain)} items, {len(dataset.attack)} documents "
          f"of the attack")
    for side in (ours, released):  # once for what is loaded at first use
        side(replace(dataset, forget=dataset.forget[:1], retain=[], attack=[]), model, tokenizer)
    fast, seconds = timed(lambda: ours(dataset, model, tokenizer), model)
    told(f"ours, {fast.tokens} tokens", seconds)
    sides = {f"{NEW_TOKENS} tokens always": False, "up to the end token": True}
    if fast.tokens == NEW_TOKENS * len(fast.texts):
        del sides["up to the end token"]  # which no answer has
    for label, ends in sides.items():
        slow, needed = timed(lambda ends=ends: released(dataset, model, tokenizer, ends), model)
        told(f"released, {label}, {slow.tokens} tokens", needed)
        check(slow, fast)
        print(f"  official {name} ratio {needed / seconds:.2f}x (released: {label}; scores equal"
              f"{'' if ends else f'; wanted {WANTED[name]}x'})", flush=True)


def ours(dataset: Dataset, model, tokenizer) -> Found:
    """Lethe's evaluation, without MMLU."""
    found = evaluate(model, tokenizer, replace(dataset, mmlu_test=[]),
                     Evaluation(max_new_tokens=NEW_TOKENS))
    rows = {(row["split"], row["id"]): row for row in found.answers}
    return Found({key: row["generation"] for key, row in rows.items()}, {key: row["nll"] for key, row in rows.items()},
                 [row["nll"] for row in found.documents], found.scores,
                 sum(row["new_tokens"] + (not row["hit_limit"]) for row in found.answers))


def released(dataset: Dataset, model, tokenizer, ends: bool = True) -> Found:
    """What `evaluate_generations.py` computes, item after item. `ends`: whether an end token ends an answer."""
    found, cells = Found({}, {}, [], {}, 0), defaultdict(list)
    scorer, stops = RougeScorer(["rouge1", "rougeL"], use_stemmer=True), end_tokens(model, tokenizer)
    for split, item in [*(("retain", i) for i in dataset.retain), *(("forget", i) for i in dataset.forget)]:
        text, nll, tokens = answered(item, model, tokenizer, stops, ends)
        found.texts[split, item.id], found.nll[split, item.id] = text, nll
        found.tokens += tokens
        value = (scorer.score(item.answer, text)["rougeL"].recall if item.kind == SC
                 else float(item.answer.strip().lower() == text.strip().lower()))
        cells[sub_score_key(split, item.kind, item.task)].append(value)
    found.attack = [loss_of(model, tokens_of(tokenizer, entry.text, model)) for entry in dataset.attack]
    found.scores = {key: fmean(values) for key, values in cells.items()}
    losses = {entry.document: loss for entry, loss in zip(dataset.attack, found.attack, strict=True)}
    members, others = ([losses[entry.document] for entry in dataset.attack if entry.member == wanted]
                       for wanted in (True, False))
    if members and others:
        found.scores["mia_auc"] = fmean((a < b) + (a == b) / 2 for a in members for b in others)
    return found


def answered(item: Item, model, tokenizer, stops: set[int], ends: bool) -> tuple[str, float, int]:
    """(greedy answer up to its end token, mean NLL of the reference, tokens generated)."""
    prompt, whole = (tokens_of(tokenizer, text, model) for text in (item.prompt, item.prompt + item.answer))
    settings = model.generation_config
    usual, settings.eos_token_id = settings.eos_token_id, sorted(stops) if ends else None
    with torch.no_grad():
        written = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True,
                                 pad_token_id=tokenizer.eos_token_id)[0, prompt.shape[1]:].tolist()
    settings.eos_token_id = usual
    end = next((place for place, token in enumerate(written) if token in stops), len(written))
    text = tokenizer.clean_up_tokenization(tokenizer.decode(written[:end + 1], skip_special_tokens=True))
    return text, loss_of(model, whole, prompt.shape[1]), len(written)


def tokens_of(tokenizer, text: str, model) -> torch.Tensor:
    return tokenizer(text, return_tensors="pt").input_ids.to(model.device)


def loss_of(model, ids: torch.Tensor, prompt: int = 0) -> float:
    """Mean NLL of the tokens (1, T) after the first `prompt`."""
    labels = ids.clone()
    labels[:, :prompt] = -100
    with torch.no_grad():
        return model(ids, labels=labels).loss.item()


def check(slow: Found, fast: Found) -> None:
    """The same texts, losses and scores, or an AssertionError."""
    assert fast.texts == slow.texts, "texts differ"
    np.testing.assert_allclose([fast.nll[key] for key in slow.nll], list(slow.nll.values()), rtol=1e-4)
    np.testing.assert_allclose(fast.attack, slow.attack, rtol=1e-4)
    slow.scores["task_aggregate"] = harmonic_mean([
        1 - slow.scores[m.key] if m.ideal == 0 else slow.scores[m.key] for m in SUB_SCORES])
    for key, value in slow.scores.items():
        np.testing.assert_allclose(fast.scores[key], value, atol=1e-9, err_msg=key)


# ---- MMLU --------------------------------------------------------------------------------------------------------

def letters(model, tokenizer, dev: list[Question], test: list[Question]) -> None:
    """One full prompt per question, alone and in batches, and ours."""
    subjects = len({question.subject for question in test})
    print(f"MMLU, letters after {SHOTS} examples: {len(test)} questions of {subjects} subjects")
    prompts = [prompt_of(model, tokenizer, question, dev) for question in test]
    lengths = [len(prompt) for prompt in prompts]
    answer_questions(model, tokenizer, test[:1], dev, shots=SHOTS)
    rows, seconds = timed(lambda: answer_questions(model, tokenizer, test, dev, shots=SHOTS), model)
    predicted = [row["predicted"] for row in rows]
    told("ours, each subject's examples once", seconds)
    for label, size in (("one full prompt at a time", 1), (f"full prompts, {PER_BATCH} tokens at a time", 64)):
        slow, needed = timed(lambda size=size: full_prompts(model, tokenizer, test, dev, size), model)
        told(f"{label}, {fmean(lengths):.0f} tokens each", needed)
        assert slow == predicted, f"predictions differ: {label}"
        print(f"  mmlu ratio {needed / seconds:.2f}x ({label}; predictions equal"
              f"{f'; wanted {WANTED_MMLU}x' if size == 1 else ''})", flush=True)


def full_prompts(model, tokenizer, test: list[Question], dev: list[Question], batch_size: int) -> list[int]:
    """Predicted letters, each from its own whole prompt."""
    prompts = [prompt_of(model, tokenizer, question, dev) for question in test]
    letter_ids = [tokenizer.encode(f" {letter}", add_special_tokens=False)[-1] for letter in LETTERS]
    predicted = [0] * len(prompts)
    for batch in by_length([len(ids) for ids in prompts], batch_size, PER_BATCH):
        inputs = left_padded([prompts[index] for index in batch], 0, model.device)
        with torch.no_grad():
            logits = model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1, letter_ids]
        for index, choice in zip(batch, logits.argmax(-1).tolist(), strict=True):
            predicted[index] = choice
    return predicted


def texts(model, tokenizer, test: list[Question]) -> None:
    """Every option after its question, each a sequence of its own, and ours."""
    print(f"MMLU, likelihood of the options' texts: {len(test)} questions")
    answer_questions(model, tokenizer, test[:1], [], scoring="texts")
    rows, seconds = timed(lambda: answer_questions(model, tokenizer, test, [], scoring="texts"), model)
    told("ours, each question once", seconds)
    whole = [encode(tokenizer, Item("quiz-qa0", question.question, option, question.subject), UNCUT)
             for question in test for option in question.options]
    scored, needed = timed(lambda: sequence_nll(model, [(row.ids, row.prompt_tokens) for row in whole]), model)
    told(f"each option with its question, {fmean(len(row.ids) for row in whole):.0f} tokens each", needed)
    losses = np.array([loss for loss, _ in scored]).reshape(-1, len(LETTERS))
    assert losses.argmin(1).tolist() == [row["predicted"] for row in rows], "predictions differ"
    print(f"  texts ratio {needed / seconds:.2f}x (predictions equal)", flush=True)


def prompt_of(model, tokenizer, question: Question, dev: list[Question]) -> list[int]:
    """The official prompt with as many examples as fit."""
    limit = min(context_length(model), PROMPT_TOKENS)
    solved = [example for example in dev if example.subject == question.subject]
    for count in range(SHOTS, -1, -1):
        ids = tokenizer(letter_prompt(question, solved[:count])).input_ids
        if len(ids) <= limit:
            return ids
    return ids[-limit:]


# ---- what both sides are given -----------------------------------------------------------------------------------

def subject_of(options: argparse.Namespace, questions: list[Question]) -> tuple[Dataset, object, object]:
    """(dataset, model, tokenizer): of the run, or the generated world and a model with random weights."""
    if options.run:
        run = Run(options.run)
        return data.load_saved(run.data_dir), *run_models.load(run, run.recipe(), "base", options.device)
    chosen = recipe.load("demo")
    sides = world.generate(chosen.world, chosen.seed)
    dataset = data.assemble(sides.forget, sides.retain, [], [], [], data=chosen.data, seed=chosen.seed,
                            base_is_trained_here=True, mia_members="forget")
    texts = world.generic_texts(chosen.seed) + [letter_prompt(question, []) for question in questions]
    small = options.model == "demo"
    tokenizer = models.train_tokenizer(texts, chosen.base.vocabulary if small else 8192)
    model = (models.new_model(chosen.base, tokenizer, chosen.seed, PROMPT_TOKENS) if small else
             smollm(tokenizer)).to(options.device).eval()
    if options.ends:
        model.generation_config.eos_token_id = list(range(0, model.config.vocab_size, options.ends))
    return dataset, model, tokenizer


def smollm(tokenizer) -> LlamaForCausalLM:
    """A model of SmolLM2-135M's shape with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=0.04,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None))


def few(dataset: Dataset, count: int) -> Dataset:
    """`count` items of each split, of tasks and kinds in turn, and a third as many members and non-members."""
    def spread(items: list[Item]) -> list[Item]:
        cells = defaultdict(list)
        for item in items:
            cells[item.task, item.kind].append(item)
        return [item for row in zip_longest(*cells.values()) for item in row if item][:count]

    members, others = ([entry for entry in dataset.attack if entry.member == wanted][:max(1, count // 3)]
                       for wanted in (True, False))
    return replace(dataset, forget=spread(dataset.forget), retain=spread(dataset.retain), attack=members + others)


def quiz(folder: Path | None, subjects: int, per_subject: int) -> tuple[list[Question], list[Question]]:
    """(dev, test) of `subjects` subjects, evenly over the alphabet; made up where there is no folder."""
    dev, test = read_mmlu(folder) if folder else made_up(subjects, per_subject)
    names = sorted({question.subject for question in test})
    subjects = min(subjects, len(names))
    chosen = tuple(names[len(names) * (2 * number + 1) // (2 * subjects)] for number in range(subjects))
    return choose(dev, chosen), choose(test, chosen, per_subject)


def made_up(subjects: int, per_subject: int) -> tuple[list[Question], list[Question]]:
    """Questions of about 470 characters with their options, MMLU's mean."""
    rng = random.Random(0)
    words = " ".join(world.generic_texts(0, 30)).split()

    def question(subject: str) -> Question:
        text, *options = (" ".join(rng.choices(words, k=length)) for length in (rng.randint(30, 60), 8, 8, 8, 8))
        return Question(subject, f"{text}?", tuple(options), rng.randrange(len(LETTERS)))

    names = [f"subject_{number}" for number in range(subjects)]
    return ([question(name) for name in names for _ in range(SHOTS)],
            [question(name) for name in names for _ in range(per_subject)])


def timed(work: Callable, model) -> tuple[object, float]:
    """(result, seconds): CPU seconds of all threads, on a GPU wall seconds."""
    gpu = model.device.type == "cuda"
    clock = time.perf_counter if gpu else time.process_time
    start = clock()
    result = work()
    if gpu:
        torch.cuda.synchronize()
    return result, clock() - start


def told(label: str, seconds: float) -> None:
    print(f"  {label:55} {seconds:8.2f} s", flush=True)


if __name__ == "__main__":
    main()
