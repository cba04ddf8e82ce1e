"""Settings: everything that defines a run, as frozen dataclasses.

Each field carries its own help, limits and choices (`setting(...)`), so the command line, the forms of the
dashboard and the documentation have one source. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unlearn_core.vocabulary import (
    LOSS_TERMS,
    MERGE_DIVISORS,
    MERGE_ELECTIONS,
    MERGE_LEVELS,
    MERGE_METHODS,
    MERGE_RESCALES,
    MERGE_SCOPES,
)

MAX_SEED = 2**31 - 1
REFERENCE_CACHE_BYTES = 1 << 30  # up to this Unlearning.klr_reference "auto" keeps, beyond it computes again


def setting(default: Any, help: str, *, minimum: float | None = None, maximum: float | None = None,
            above: float | None = None, choices: tuple | None = None) -> Any:
    """A recipe field with its explanation and its limits (`above` is an exclusive minimum)."""
    limits = {"help": help, "minimum": minimum, "maximum": maximum, "above": above, "choices": choices}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class World:
    """Size of the generated world, in documents per side (forget, retain) before the holdout is taken out."""

    stories: int = setting(50, "Task1 documents per side", minimum=2)
    people: int = setting(20, "Task2 documents (people with PII) per side", minimum=2)
    biographies: int = setting(58, "Task3 documents per side", minimum=2)
    quiz_per_subject: int = setting(19, "general-knowledge questions per subject", minimum=1, maximum=19)


@dataclass(frozen=True)
class Data:
    """Where forget, retain, the attack's documents and the MMLU questions come from."""

    source: str = setting("world", "generated world, or files of yours", choices=("world", "files"))
    path: str = setting("", "folder in LUME or SemEval layout, or hf://datasets/... ; used where a file is not named")
    forget: str = setting("", "forget file (JSONL, column-wise JSON, Parquet, CSV)")
    retain: str = setting("", "retain file")
    mia: str = setting("", "folder with member.jsonl and nonmember.jsonl (field `document`)")
    mmlu: str = setting("", "folder with MMLU's dev/ and test/ CSV files; empty: MMLU is not measured")
    documents_per_task: int = setting(0, "keep this many documents per task and split (0: all)", minimum=0)
    subset_seed: int = setting(0, "seed that chooses the documents of a subset", minimum=0)
    holdout_share: float = setting(0.2, "share of the documents per task and split that is never trained on "
                                        "(only where the base is trained here)", minimum=0.0, maximum=0.8)
    allow_overlap: bool = setting(False, "accept documents that stand in forget and in retain")


@dataclass(frozen=True)
class Base:
    """The model that has memorised: trained here from scratch, trained here from a pretrained one, or loaded."""

    source: str = setting("scratch", "scratch: small OLMo trained here; memorise: a pretrained model trained here; "
                                     "load: a model that has memorised already",
                          choices=("scratch", "memorise", "load"))
    model: str = setting("", "folder or hub id (for memorise and load)")
    vocabulary: int = setting(1024, "tokens of the BPE trained for a model from scratch", minimum=300, maximum=50304)
    hidden_size: int = setting(128, "width", minimum=16)
    layers: int = setting(3, "number of decoder layers", minimum=1)
    heads: int = setting(4, "attention heads", minimum=1)
    mlp_size: int = setting(384, "width of the MLP", minimum=16)
    init_std: float = setting(0.02, "standard deviation of the initial weights of a model from scratch", above=0.0)
    epochs: int = setting(20, "passes over forget + retain while memorising", minimum=1)
    lr: float = setting(3e-3, "peak learning rate while memorising", above=0.0)
    batch_size: int = setting(8, "items per optimizer step while memorising", minimum=1)
    warmup_share: float = setting(0.05, "share of the steps with rising learning rate", minimum=0.0, maximum=1.0)
    weight_decay: float = setting(0.0, "AdamW weight decay", minimum=0.0)
    adam_beta2: float = setting(0.999, "AdamW's memory of squared gradients", minimum=0.0, maximum=0.99999)
    clip: float = setting(1.0, "gradient-norm clip (0: off)", minimum=0.0)
    gradient_checkpointing: bool = setting(False, "recompute activations to save memory")
    compiled: bool = setting(False, "torch.compile the forward; pays off on a GPU over many steps")

    def steps(self, items: int) -> int:
        """Optimizer steps of memorising so many items; the last batch of an epoch may be smaller."""
        return self.epochs * -(-items // self.batch_size)


@dataclass(frozen=True)
class Encoding:
    """How an item becomes tokens (paper's code: 256 tokens, prompt at most 80 % of them, left padding)."""

    max_length: int = setting(256, "tokens of prompt + answer + end", minimum=8)
    prompt_share: float = setting(0.8, "the prompt keeps its last max_length * prompt_share tokens",
                                  above=0.0, maximum=1.0)
    padding_side: str = setting("left", "side of the padding inside a batch", choices=("left", "right"))


@dataclass(frozen=True)
class Lora:
    """What is trained in unlearning: LoRA on every linear layer but the output head, or a part of them."""

    kind: str = setting("lora", "lora: factors of rank r; full: every entry of the same weights, kept as an adapter of "
                                "full rank (for small models; r, alpha and dropout then do not count)",
                        choices=("lora", "full"))
    r: int = setting(32, "rank", minimum=1)
    alpha: float = setting(32.0, "scaling numerator; the update is alpha / r * B A", above=0.0)
    dropout: float = setting(0.05, "dropout on the adapter's input", minimum=0.0, maximum=0.9)
    layers: tuple[int, ...] = setting((), "decoder layers that are changed, from 0, or from -1 backwards (empty: all)")
    modules: tuple[str, ...] = setting((), "linear layers that are changed, such as up_proj (empty: all)")


@dataclass(frozen=True)
class Unlearning:
    """One unlearning run. Total loss = npo_weight NPO + gdr_weight GDR + klr_weight KLR + other terms by weight."""

    npo_weight: float = setting(0.4, "weight of NPO (forget)", minimum=0.0)
    gdr_weight: float = setting(0.2, "weight of GDR, the cross-entropy on retain", minimum=0.0)
    klr_weight: float = setting(0.4, "weight of KLR, KL(reference || model) on retain", minimum=0.0)
    ga_weight: float = setting(0.0, "weight of gradient ascent on forget; below 0 forget is learned instead, for "
                                    "task-vector negation with a scale below 0")
    simnpo_weight: float = setting(0.0, "weight of SimNPO (forget, without a reference)", minimum=0.0)
    uniform_weight: float = setting(0.0, "weight of KL(uniform || model) on forget's answers", minimum=0.0)
    refusal_weight: float = setting(0.0, "weight of the cross-entropy on refusals as answers to forget's prompts (IDK)",
                                    minimum=0.0)
    positive_weight: float = setting(0.0, "weight of the cross-entropy on retain's answers to forget's prompts, as "
                                          "positive targets", minimum=0.0)
    beta: float = setting(0.1, "NPO temperature", above=0.0)
    simnpo_beta: float = setting(4.5, "SimNPO temperature", above=0.0)
    npo_reduction: str = setting("batch_mean", "what Delta = NLL - NLL_ref is in NPO: sum over a sequence, token mean "
                                               "of the whole micro-batch (released code), or each token",
                                 choices=("batch_mean", "sequence_sum", "token"))
    klr_positions: str = setting("real", "positions that KLR averages over: answer tokens, all real tokens, or all "
                                         "max_length positions with padding (released code)",
                                 choices=("answer", "real", "padded"))
    klr_reference: str = setting("auto", "how the reference's distributions on retain are kept: whole (fp32, bf16), as "
                                         "the hidden states before the head (exact and small), the likeliest tokens "
                                         "and the rest as one (top_k, a lower bound of KLR), or not (forward at each "
                                         "step); auto: fp32 up to 1 GiB, else hidden up to 1 GiB, else forward",
                                 choices=("auto", "forward", "hidden", "fp32", "bf16", "top_k"))
    klr_reference_place: str = setting("memory", "where they are kept: the model's device, or a file mapped into it",
                                       choices=("memory", "disk"))
    klr_top_k: int = setting(256, "tokens kept at each position by top_k", minimum=1)
    pairing: str = setting("fixed", "which retain item goes with forget item i: i mod |retain| always (released code), "
                                    "or a fresh shuffle each epoch", choices=("fixed", "shuffled"))
    batch_size: int = setting(1, "items per micro-batch and device", minimum=1)
    gradient_accumulation: int = setting(4, "micro-batches per optimizer step", minimum=1)
    retain_per_forget: int = setting(1, "retain items read with each forget item", minimum=1)
    chunk: int = setting(0, "unlearn so many forget items after the other, each chunk for all epochs (0: all together)",
                         minimum=0)
    joined: bool = setting(True, "run the micro-batches of a step in one forward (same gradient, faster)")
    packed: bool = setting(False, "put the rows of a forward into one sequence without padding (for SDPA attention)")
    compiled: bool = setting(False, "torch.compile the forward; pays off on a GPU over many steps")
    epochs: float = setting(5.0, "passes over forget", above=0.0)
    lr: float = setting(1e-4, "peak learning rate", above=0.0)
    weight_decay: float = setting(0.01, "AdamW weight decay", minimum=0.0)
    warmup_epochs: float = setting(1.0, "epochs of rising learning rate, then linear decay to 0", minimum=0.0)
    clip: float = setting(0.0, "gradient-norm clip (0: off, as in the released code)", minimum=0.0)
    seed: int = setting(42, "seed of adapter initialisation, order and dropout, added to the run's seed", minimum=0,
                        maximum=MAX_SEED)
    checkpoints: int = setting(20, "adapter checkpoints kept along the way, evenly spaced", minimum=0)
    gradient_checkpointing: bool = setting(False, "recompute activations to save memory")
    scale: float = setting(1.0, "what the trained weight change is multiplied by; below 0 it is negated")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss term, by its key."""
        return {term: getattr(self, f"{term}_weight") for term in LOSS_TERMS}

    def per_step(self, processes: int = 1) -> int:
        """Forget items that one optimizer step reads; it reads as many of retain."""
        return self.batch_size * self.gradient_accumulation * processes

    def steps(self, forget: int, processes: int = 1) -> int:
        """Optimizer steps for so many forget items: the epochs follow one another without a gap; at least 1."""
        return max(1, int(self.epochs * forget // self.per_step(processes)))

    def warmup(self, forget: int, processes: int = 1) -> int:
        """Steps with rising learning rate."""
        return int(self.warmup_epochs * forget // self.per_step(processes))

    def kept_reference(self, positions: int, vocabulary: int, hidden_bytes: int) -> tuple[str, int]:
        """(how the reference's distributions at so many positions of retain are kept, or "forward"; bytes of it).

        `hidden_bytes`: size of one hidden state.
        """
        sizes = {"fp32": 4 * vocabulary, "hidden": hidden_bytes, "bf16": 2 * vocabulary,
                 "top_k": 8 * min(self.klr_top_k, vocabulary), "forward": 0}
        kind = self.klr_reference if self.klr_weight else "forward"
        if kind == "auto":
            kind = next((name for name in ("fp32", "hidden") if positions * sizes[name] <= REFERENCE_CACHE_BYTES),
                        "forward")
        return kind, positions * sizes[kind]


@dataclass(frozen=True)
class Merge:
    """How the two adapters become one."""

    method: str = setting("ties", "merge method; task arithmetic is linear on delta, negation a weight below 0",
                          choices=MERGE_METHODS)
    level: str = setting("factors", "merge the LoRA factors A and B (as PEFT), or the weight changes delta W",
                         choices=MERGE_LEVELS)
    density: float = setting(0.8, "share of the entries that is kept: the largest ones, in DARE random ones", above=0.0,
                             maximum=1.0)
    weights: tuple[float, ...] = setting((1.0, 1.0), "one weight per adapter")
    rank: int = setting(0, "rank that a merge of weight changes is compressed to by SVD (0: exact)", minimum=0)
    trim_scope: str = setting("matrix", "the largest entries are those of each matrix, or of the whole adapter",
                              choices=MERGE_SCOPES)
    elect: str = setting("before", "signs are compared before (PEFT) or after weighting (mergekit)",
                         choices=MERGE_ELECTIONS)
    divisor: str = setting("usual", "what a merged entry is divided by: the number of its contributors, their weights, "
                                    "nothing, or as usual: count for TIES and NegMerge, nothing for the others",
                           choices=MERGE_DIVISORS)
    rescale: str = setting("usual", "pruned adapters are divided by the density, or brought back to their L1 norm "
                                    "(mergekit), or left; as usual: density for DARE, none for the others",
                           choices=MERGE_RESCALES)
    seed: int = setting(0, "seed of what DARE drops", minimum=0, maximum=MAX_SEED)


MERGE_PRESETS = ("peft", "mergekit", "ties-paper")


def merge_preset(name: str, method: str = "ties") -> Merge:
    """A method as PEFT or mergekit carries it out by default, or as the code of TIES's authors (arXiv 2306.01708)."""
    if name == "peft":
        return Merge(method)
    if name == "ties-paper":
        return Merge(method, level="delta", trim_scope="global")
    return Merge(method, level="delta", elect="after", divisor="weights" if method == "ties" else "none",
                 rescale="l1" if method.startswith("dare") else "none")


@dataclass(frozen=True)
class Evaluation:
    """The official scores."""

    max_new_tokens: int = setting(256, "tokens generated per item", minimum=1)
    batch_size: int = setting(64, "items per forward", minimum=1)
    mia_members: str = setting("forget", "member documents of the attack: all forget documents, those of one task, or "
                                         "member.jsonl", choices=("forget", "forget_task1", "forget_task2",
                                                                  "forget_task3", "files"))
    mmlu_scoring: str = setting("letters", "official letters A-D, or likelihood of the answer texts (for models too "
                                           "small to bind letters)", choices=("letters", "texts"))
    mmlu_shots: int = setting(5, "solved examples before each question", minimum=0, maximum=5)
    mmlu_subjects: tuple[str, ...] = setting((), "subjects to ask (empty: all)")
    mmlu_limit: int = setting(0, "questions per subject (0: all)", minimum=0)
    open_questions: int = setting(24, "general questions per subject asked without their options, too", minimum=0)


@dataclass(frozen=True)
class Recipe:
    """One run: data, base, two unlearning runs, merge, evaluation."""

    name: str = setting("unnamed", "short name; part of the run's id")
    description: str = setting("", "one sentence")
    seed: int = setting(0, "seed of everything random", minimum=0, maximum=MAX_SEED)
    precision: str = setting("fp32", "fp32, or bf16 base weights and activations with fp32 LoRA",
                             choices=("fp32", "bf16"))
    threads: int = setting(0, "CPU threads (0: all); a fixed number makes runs equal across machines", minimum=0)
    world: World = field(default_factory=World)
    data: Data = field(default_factory=Data)
    base: Base = field(default_factory=Base)
    encoding: Encoding = field(default_factory=Encoding)
    lora: Lora = field(default_factory=Lora)
    model_1: Unlearning = field(default_factory=Unlearning)
    model_2: Unlearning = field(default_factory=Unlearning)
    merge: Merge = field(default_factory=Merge)
    evaluation: Evaluation = field(default_factory=Evaluation)
