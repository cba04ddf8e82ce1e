"""How fast a step of unlearning is beside the way of the paper's released code, both sides in turn in one run.

    python -m benchmarks.train_step --model demo|53m|smollm2|1b|7b [--klr real|answer|padded] [--repeat 5]

The naive form is the released script's (zjunlp/unlearn, semeval25/unlearn-merging.py), written anew: rows padded on the
left to 256 tokens, a second model as the reference, four forwards per micro-batch, logits everywhere, gradient
checkpointing (without: --checkpointing none), gradients accumulated. Ours is `train.part_loss` as every run uses it.
Models have random weights and LoRA of rank 32 on every linear layer; items have the lengths of LUME's, and random
tokens. Losses and gradients of both are compared first. Time is that of a whole optimizer step, of the process on a CPU
(so other work on the machine counts little), else by the clock; dropout is off, so that both compute the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, OlmoConfig, OlmoForCausalLM

from unlearn_core import models
from unlearn_core.encoding import Encoded, collate
from unlearn_core.settings import Lora, Unlearning
from unlearn_core.training import train
from unlearn_core.training.forward import Reader
from unlearn_core.training.fused import fused
from unlearn_core.training.reference import Reference
from unlearn_core.training.schedule import MicroBatch, Schedule

LENGTH, PROMPT = 256, 204  # of the released code: all tokens, and those of the prompt at most
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, from the makers' data sheets
# Tokens of prompt + answer (with its end) of 128 random rows of LUME's files, by SmolLM2's tokenizer.
FORGET = (
    "247+68 66+48 180+42 9+11 10+10 18+5 12+8 13+10 18+5 10+12 41+75 57+58 194+37 236+47 243+61 48+69 159+38 "
    "222+71 11+11 26+7 191+45 9+11 185+31 12+10 37+74 147+59 17+5 177+46 10+20 17+6 42+79 25+6 13+3 11+10 11+10 "
    "12+10 12+11 178+47 11+20 9+11 38+53 11+11 12+30 8+11 11+11 38+76 11+24 10+20 11+22 164+51 9+11 10+10 41+75 "
    "11+10 11+11 41+74 10+11 11+10 13+23 10+10 15+20 40+70 19+6 9+9 10+11 193+38 180+23 12+10 22+3 11+10 10+11 "
    "9+11 16+6 9+11 158+34 11+11 12+11 14+4 11+10 12+25 168+37 10+11 185+46 10+11 9+11 9+11 10+10 157+38 179+37 "
    "14+8 166+31 11+20 37+77 37+76 16+5 140+34 9+11 11+11 56+46 11+11 10+11 157+31 10+11 11+11 172+48 11+11 47+66 "
    "155+56 10+10 224+77 47+76 11+23 10+11 145+37 172+40 72+6 13+10 40+71 11+8 11+22 41+67 177+44 171+44 232+36 "
    "20+3 10+11 10+19 17+7 ")
RETAIN = (
    "12+10 11+20 162+52 20+2 177+55 19+8 208+52 10+11 14+3 12+10 10+10 10+24 12+11 8+11 170+39 15+4 10+10 49+5 "
    "9+11 70+43 17+5 11+10 23+11 28+4 11+11 11+21 134+37 10+10 11+3 140+46 9+11 12+4 10+11 47+72 10+11 12+20 "
    "10+11 179+60 10+11 11+13 10+11 40+8 14+7 19+8 10+11 176+42 158+46 15+6 22+5 43+7 20+12 9+11 10+10 12+10 22+5 "
    "69+41 14+4 9+9 10+24 40+67 9+11 13+19 42+56 11+11 10+11 10+11 53+47 12+11 11+7 10+11 11+10 11+28 10+21 "
    "168+56 15+3 17+5 10+5 8+11 201+57 189+38 23+3 10+21 11+10 11+21 10+26 14+4 10+10 9+11 10+10 11+10 11+11 "
    "182+24 24+3 16+5 195+62 12+24 11+11 10+4 25+67 214+58 182+40 9+9 11+10 11+12 11+11 153+50 14+18 198+63 "
    "187+42 252+71 11+10 168+64 240+48 173+34 22+83 40+58 11+19 10+23 9+11 9+4 23+8 10+11 12+10 9+11 11+11 11+11 "
    "10+11 12+10 ")
SHAPES = {  # hidden, layers, heads, key-value heads, MLP, vocabulary, tied
    "demo": (128, 3, 4, 4, 384, 1400, False), "53m": (384, 6, 6, 6, 1536, 50304, False),
    "smollm2": (576, 30, 9, 3, 1536, 49152, True), "1b": (2048, 16, 16, 16, 8192, 50304, True),
    "7b": (4096, 32, 32, 32, 11008, 50304, False)}
PAPER = {"model_1": {"batch_size": 1, "npo_weight": 0.4, "gdr_weight": 0.2, "klr_weight": 0.4},
         "model_2": {"batch_size": 2, "npo_weight": 0.3, "gdr_weight": 0.4, "klr_weight": 0.3}}
SIDES = ("naive", "ours")
CHECKPOINTING = {"naive": ("naive",), "both": SIDES, "none": ()}


def items(lengths: str, vocabulary: int, seed: int) -> list[Encoded]:
    """Random tokens in these lengths, cut as the released code cuts."""
    random = torch.Generator().manual_seed(seed)
    rows = []
    for pair in lengths.split():
        prompt, answer = map(int, pair.split("+"))
        prompt = min(prompt, PROMPT)
        ids = torch.randint(vocabulary, (min(prompt + answer, LENGTH),), generator=random)
        rows.append(Encoded(ids.tolist(), prompt, prompt + answer > LENGTH))
    return rows


def original(name: str, device: str):
    """A random model of the shape, the same each time; bf16 on a GPU."""
    hidden, layers, heads, key_values, mlp, vocabulary, tied = SHAPES[name]
    config, network = (LlamaConfig, LlamaForCausalLM) if heads != key_values else (OlmoConfig, OlmoForCausalLM)
    torch.manual_seed(0)
    with torch.device(device):
        model = network(config(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=key_values, tie_word_embeddings=tied,
            max_position_embeddings=2048, pad_token_id=0, eos_token_id=0, bos_token_id=None))
    return model.to(torch.float32 if device == "cpu" else torch.bfloat16).eval().requires_grad_(False)


def adapted(model):
    """The model with a LoRA whose B is not 0, so that all gradients are there."""
    model = models.add_adapter(model, Lora(dropout=0.0), seed=0).to(model.device)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=1e-3)
    return model


# ---- the two sides -----------------------------------------------------------------------------------------------

def naive_backward(model, reference, micro_batches: list[MicroBatch], texts: train.Texts,
                   settings: Unlearning) -> float:
    """Gradients of one step as the released code computes them; the mean loss."""
    device = next(model.parameters()).device

    def padded(rows: list[Encoded]):
        return collate(rows, pad_id=0, side="left", length=LENGTH).to(device)

    def through(network, batch, labels):
        return network(**batch.inputs(), labels=labels, use_cache=False)

    total = 0.0
    for micro in micro_batches:
        forget, retain = ((padded(rows), answers(rows, device)) for rows in
                          ([texts.forget[i] for i in micro.forget], [texts.retain[i] for i in micro.retain]))
        with torch.no_grad():
            forget_reference, retain_reference = through(reference, *forget), through(reference, *retain)
        forget_out, retain_out = through(model, *forget), through(model, *retain)
        npo = -2 / settings.beta * F.logsigmoid(settings.beta * (forget_out.loss - forget_reference.loss))
        each = F.kl_div(retain_out.logits.log_softmax(-1), retain_reference.logits.softmax(-1), reduction="none")
        places = compared(*retain, settings.klr_positions)
        klr = (each.sum(-1) * places).sum() / places.sum()
        loss = settings.npo_weight * npo + settings.klr_weight * klr + settings.gdr_weight * retain_out.loss
        (loss / len(micro_batches)).backward()
        total += float(loss.detach()) / len(micro_batches)
    return total


def answers(rows: list[Encoded], device: torch.device) -> torch.Tensor:
    """Labels (B, LENGTH) of rows padded on the left: the answer's tokens, -100 before them."""
    labels = torch.full((len(rows), LENGTH), -100)
    for row, own in zip(rows, labels, strict=True):
        own[LENGTH - len(row.ids) + row.prompt_tokens:] = torch.tensor(row.ids[row.prompt_tokens:])
    return labels.to(device)


def compared(batch, labels: torch.Tensor, positions: str) -> torch.Tensor:
    """Positions that KLR averages over, (B, T) as numbers."""
    if positions == "padded":
        return torch.ones_like(batch.attention_mask)
    return batch.attention_mask if positions == "real" else F.pad(labels[:, 1:] != -100, (0, 1)).long()


# ---- one comparison ----------------------------------------------------------------------------------------------

class Case:
    """One model and one of the paper's two settings, with what both sides need for a step."""

    def __init__(self, model, settings: Unlearning, seed: int, checkpointing: tuple[str, ...] = ()):
        vocabulary = model.config.vocab_size
        self.model, self.settings, self.checkpointing = model, settings, checkpointing
        self.texts = train.Texts(items(FORGET, vocabulary, seed), items(RETAIN, vocabulary, seed + 1), [], [])
        self.schedule = Schedule(len(self.texts.forget), len(self.texts.retain), settings, seed)
        self.device = next(model.parameters()).device
        reader = Reader(model, pad_id=0, side="left", packed=settings.packed,
                        width=LENGTH if settings.klr_positions == "padded" else 0)
        started = clock(self.device)
        self.reference = Reference(model, self.texts.forget, self.texts.retain, reader, settings)
        self.once = clock(self.device) - started  # seconds that the reference takes before the first step
        self.second = None  # the naive side's reference
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = {side: torch.optim.AdamW(self.parameters, lr=0.0, fused=True) for side in SIDES}

    def backward(self, side: str, step: int) -> float:
        """Gradients of a step; its loss."""
        micro_batches = self.schedule.micro_batches(step)
        if side == "naive":
            return naive_backward(self.model, self.second, micro_batches, self.texts, self.settings)
        loss, row = train.part_loss(self.model, micro_batches, self.texts, self.reference, self.settings)
        loss.backward()
        return row["loss"]

    def step(self, side: str, step: int) -> float:
        """Seconds of a whole optimizer step. The learning rate is 0, so that all steps start at the same weights."""
        with self.prepared(side):
            started = clock(self.device)
            self.backward(side, step)
            self.optimizers[side].step()
            self.model.zero_grad(set_to_none=True)
            return clock(self.device) - started

    @contextmanager
    def prepared(self, side: str) -> Iterator[None]:
        """The model as a whole training has it."""
        if side in self.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            with fused(self.model) if side == "ours" else nullcontext():
                yield
        finally:
            self.model.gradient_checkpointing_disable()

    def gradients(self, side: str) -> tuple[float, list[torch.Tensor]]:
        """(loss, gradient of each parameter) of the first step."""
        with self.prepared(side):
            loss = self.backward(side, 0)
        found = [p.grad.clone() for p in self.parameters]
        self.model.zero_grad(set_to_none=True)
        return loss, found

    def tokens(self, step: int) -> int:
        """Real tokens of a step, forget and retain."""
        return sum(len(rows[i].ids) for micro in self.schedule.micro_batches(step)
                   for rows, chosen in ((self.texts.forget, micro.forget), (self.texts.retain, micro.retain))
                   for i in chosen)


def clock(device: torch.device) -> float:
    """Seconds: of this process on a CPU, of the wall on a GPU that has done all its work."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_mb(case: Case, side: str) -> float:
    """Peak memory of the GPU during a step, in MiB; nothing is measured on a CPU."""
    if case.device.type == "cpu":
        return float("nan")
    torch.cuda.reset_peak_memory_stats(case.device)
    case.step(side, 0)
    return torch.cuda.max_memory_allocated(case.device) / 2**20


def difference(case: Case) -> tuple[float, float]:
    """(relative difference of the losses, of all gradients together) between the two sides at one step."""
    (loss, found), (loss_naive, found_naive) = case.gradients("ours"), case.gradients("naive")
    apart = sum(float((a - b).double().square().sum()) for a, b in zip(found, found_naive, strict=True))
    whole = sum(float(b.double().square().sum()) for b in found_naive)
    return abs(loss - loss_naive) / abs(loss_naive), (apart / whole) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="demo")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--klr", choices=("real", "answer", "padded"), default="real",
                        help="positions of KLR, the same on both sides; the released code has padded")
    parser.add_argument("--reference", default="auto", help="klr_reference of ours, such as forward")
    parser.add_argument("--packed", action="store_true", help="ours packs rows into one sequence")
    parser.add_argument("--checkpointing", choices=CHECKPOINTING, default="naive",
                        help="which side recomputes activations; the released code does")
    parser.add_argument("--repeat", type=int, default=5, help="steps of each side and setting")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = adapted(original(options.model, options.device))
    model.train()
    cases = {name: Case(model, Unlearning(klr_positions=options.klr, klr_reference=options.reference,
                                          packed=options.packed, **settings), seed=2,
                        checkpointing=CHECKPOINTING[options.checkpointing])
             for name, settings in PAPER.items()}
    memory = {(name, "ours"): peak_mb(case, "ours") for name, case in cases.items()}
    second = original(options.model, options.device)
    seconds: dict[tuple[str, str], list[float]] = {(name, side): [] for name in cases for side in SIDES}
    for name, case in cases.items():
        case.second = second
        loss, gradient = difference(case)
        print(f"{name}: loss differs by {loss:.1e}, gradients by {gradient:.1e} (relative)", flush=True)
        memory[name, "naive"] = peak_mb(case, "naive")
        for step in range(1, options.repeat + 1):
            for side in SIDES:
                seconds[name, side].append(case.step(side, step))
    report(options, cases, seconds, memory)


def report(options: argparse.Namespace, cases: dict[str, Case], seconds: dict, memory: dict) -> None:
    """The figures of each setting, and the ratio of both together."""
    print(f"{options.model} on {options.device}, KLR over {options.klr} positions, {options.repeat} steps of each, "
          f"activations recomputed: {options.checkpointing}")
    means = {key: statistics.mean(times) for key, times in seconds.items()}
    for name, case in cases.items():
        naive, ours = means[name, "naive"], means[name, "ours"]
        rate = statistics.mean(case.tokens(step) for step in range(1, options.repeat + 1)) / ours
        kept = "kept" if case.reference.kept else "computed at each step"
        print(f"{name}: naive {naive:.3f} s, ours {ours:.3f} s a step = {naive / ours:.2f}x; ours {rate:,.0f} "
              f"tokens/s; distributions of the reference {kept}, {case.once:.2f} s before the first step")
        if case.device.type == "cuda":
            share = memory[name, "ours"] / memory[name, "naive"]
            print(f"  peak memory: naive {memory[name, 'naive']:,.0f} MiB, ours {memory[name, 'ours']:,.0f} MiB = "
                  f"{share:.2f}; {utilisation(case, rate)}")
    naive, ours = (sum(value for (_, one), value in means.items() if one == side) for side in SIDES)
    print(f"ratio {naive / ours:.2f}x")


def utilisation(case: Case, tokens_per_second: float) -> str:
    """Model FLOPs: 2 a weight and token forward, 2 backward to the activations, and three times 2 for the adapters."""
    name = torch.cuda.get_device_name(case.device)
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    trained = sum(p.numel() for p in case.parameters)
    embedding = 0 if case.model.config.tie_word_embeddings else case.model.get_input_embeddings().weight.numel()
    weights = sum(p.numel() for p in case.model.parameters()) - trained - embedding
    flops = tokens_per_second * (4 * weights + 6 * trained)
    return f"{flops / 1e12:.1f} TFLOP/s" + (f" = {flops / peak:.1%} of {name}'s {peak / 1e12:.0f}" if peak else "")


if __name__ == "__main__":
    main()
