"""Task vectors: LoRA adapters in PEFT's format, and the geometry of their weight changes computed from the factors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unlearn_core.errors import InputError
from unlearn_core.files import replacing_dir

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
# With any of these the update is not alpha / r * B A on plain linear layers, alike everywhere.
_UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "trainable_token_indices",
                "target_parameters", "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora",
                "arrow_config", "kasa_config", "monteclora_config")
_PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva")  # the others (PiSSA, ...) change the base weights


@dataclass(frozen=True, eq=False)
class Factors:
    """The two LoRA matrices of one linear layer: A (r, in) and B (out, r)."""

    A: torch.Tensor
    B: torch.Tensor

    def to(self, device: str | torch.device) -> Factors:
        return Factors(self.A.to(device), self.B.to(device))


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter: factors by the module's name in the base model, and PEFT's `adapter_config.json` as a dict.

    The update of a module is scaling * B A. All modules have the rank `r` of the config.
    """

    modules: dict[str, Factors]
    config: dict

    @property
    def rank(self) -> int:
        return self.config["r"]

    @property
    def scaling(self) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA."""
        return self.config["lora_alpha"] / (math.sqrt(self.rank) if self.config.get("use_rslora") else self.rank)


# ---- files ---------------------------------------------------------------------------------------------------

def load_adapter(folder: str | Path) -> Adapter:
    """Read a plain LoRA adapter that PEFT or `save_adapter` wrote; fp32 on the CPU.

    InputError where the folder is none, a file is missing or damaged, a factor is missing or not finite, or the
    adapter has a feature whose update is not simply scaling * B A (DoRA, modules_to_save, rank_pattern, ...).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"adapter {folder}", got="no such folder",
                         expected="an existing folder with a LoRA in PEFT's format")
    config = _load_config(folder / CONFIG_FILE)
    return Adapter(_load_modules(folder / WEIGHTS_FILE, config["r"]), config)


def save_adapter(adapter: Adapter, folder: str | Path) -> None:
    """Write the adapter in PEFT's format (fp32, safetensors), whole or not at all; an older one is replaced.

    `PeftModel.from_pretrained(base, folder)` loads it.
    """
    with replacing_dir(Path(folder)) as temporary:
        tensors = {f"base_model.model.{name}.lora_{factor}.weight": getattr(factors, factor).float().cpu().contiguous()
                   for name, factors in adapter.modules.items() for factor in "AB"}
        save_file(tensors, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        text = json.dumps(adapter.config, indent=2, sort_keys=True)
        (temporary / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _load_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}", got="no such file", expected="a LoRA adapter in PEFT's format") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}", got=str(error), expected="PEFT's adapter_config.json") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise InputError(f"{path}: peft_type", got=kind, expected="LORA")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise InputError(f"{path}: r", got=rank, expected="a whole number of at least 1")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise InputError(f"{path}: lora_alpha", got=alpha, expected="a number")
    used = [name for name in _UNSUPPORTED if config.get(name)]
    used += ["bias"] if config.get("bias", "none") != "none" else []
    used += ["init_lora_weights"] if config.get("init_lora_weights") not in _PLAIN_INITS else []
    if used:
        raise InputError(f"{path}", got=", ".join(f"{name}={json.dumps(config[name])}" for name in used),
                         expected="a plain LoRA, whose update is alpha / r * B A in every module",
                         fix="train it without this feature")
    return config


def _load_modules(path: Path, rank: int) -> dict[str, Factors]:
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        fix = "pickled adapter_model.bin files are never opened: save the adapter again with safetensors"
        raise InputError(f"{path}", got="no such file", expected="LoRA weights in safetensors", fix=fix) from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}", got=f"a damaged file ({error})", expected="LoRA weights in safetensors",
                         fix="copy or train the adapter again") from None
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if not match or tensor.dim() != 2:
            raise InputError(f"{path}: {key}", got=f"shape {tuple(tensor.shape)}",
                             expected="only lora_A and lora_B matrices of linear layers")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {key}", got="NaN or infinite values", expected="finite numbers",
                             fix="the training diverged: take an earlier checkpoint or a lower learning rate")
        found.setdefault(match["module"], {})[match["factor"]] = tensor.float()
    if not found:
        raise InputError(f"{path}", got="no tensors", expected="lora_A and lora_B matrices")
    for name, pair in found.items():
        for factor in "AB":
            if factor not in pair:
                raise InputError(f"{path}: {name}", got=f"no lora_{factor}",
                                 expected="lora_A and lora_B of each module")
        if pair["A"].shape[0] != rank or pair["B"].shape[1] != rank:
            raise InputError(f"{path}: {name}", got=f"A {tuple(pair['A'].shape)}, B {tuple(pair['B'].shape)}",
                             expected=f"A ({rank}, in) and B (out, {rank}), the r of {CONFIG_FILE}")
    return {name: Factors(**found[name]) for name in sorted(found)}


# ---- updates as adapters -------------------------------------------------------------------------------------

def delta(factors: Factors, scaling: float = 1.0) -> torch.Tensor:
    """Dense weight change delta W = scaling * B A, shape (out, in)."""
    return factors.B @ factors.A * scaling


def scaled(adapter: Adapter, factor: float) -> Adapter:
    """The adapter with its update multiplied by `factor` (on B, so the config stays as it is)."""
    return replace(adapter, modules={name: Factors(f.A, f.B * factor) for name, f in adapter.modules.items()})


def from_factors(modules: dict[str, Factors], config: dict) -> Adapter:
    """An adapter whose update is B A itself: alpha = r, so scaling 1, as PEFT does for merges.

    Smaller ranks are zero-padded to the largest. Everything but rank and scaling is taken from `config`.
    """
    rank = max(factors.A.shape[0] for factors in modules.values())
    config = {**config, "r": rank, "lora_alpha": rank, "use_rslora": False, "init_lora_weights": True}
    return Adapter({name: _padded(factors, rank) for name, factors in modules.items()}, config)


def concatenated(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """The exact weighted sum of the updates, sum_i w_i delta W_i, as one adapter of the summed rank."""
    check_compatible(adapters)
    coefficients = [weight * adapter.scaling for weight, adapter in zip(weights, adapters, strict=True)]
    modules = {name: concatenated_factors([adapter.modules[name] for adapter in adapters], coefficients)
               for name in adapters[0].modules}
    return from_factors(modules, adapters[0].config)


def concatenated_factors(parts: Sequence[Factors], coefficients: Sequence[float]) -> Factors:
    """Factors of sum_i c_i B_i A_i: the A stacked, the c_i B_i side by side."""
    return Factors(A=torch.cat([part.A for part in parts]),
                   B=torch.cat([part.B * c for part, c in zip(parts, coefficients, strict=True)], dim=1))


def check_compatible(adapters: Sequence[Adapter]) -> None:
    """InputError unless all adapters are for one base and change the same modules of the same sizes (ranks may differ).

    A base that a config does not name is taken to be the right one.
    """
    first = adapters[0]
    base = first.config.get("base_model_name_or_path")
    for number, other in enumerate(adapters[1:], start=2):
        where = f"adapters 1 and {number}"
        other_base = other.config.get("base_model_name_or_path")
        if base and other_base and base != other_base:
            raise InputError(where, got=f"an adapter for another base ({base!r} and {other_base!r})",
                             expected="two adapters of one base model",
                             fix=f"if both are the same model, correct base_model_name_or_path in {CONFIG_FILE}")
        lone = sorted(first.modules.keys() ^ other.modules.keys())
        if lone:
            raise InputError(where, got=f"modules that only one of them changes: {shortened(lone)}",
                             expected="the same modules in both")
        unequal = [name for name, factors in first.modules.items() if _size(factors) != _size(other.modules[name])]
        if unequal:
            raise InputError(where, got=f"different sizes of {shortened(unequal)}",
                             expected="weights of the same shape in both")


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _size(factors: Factors) -> tuple[int, int]:
    return factors.B.shape[0], factors.A.shape[1]


def _padded(factors: Factors, rank: int) -> Factors:
    missing = rank - factors.A.shape[0]
    pad = torch.nn.functional.pad
    return Factors(pad(factors.A, (0, 0, 0, missing)), pad(factors.B, (0, missing))) if missing else factors


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: several that share operations this small mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---- geometry ------------------------------------------------------------------------------------------------

def inner_by_module(first: Adapter, second: Adapter) -> dict[str, float]:
    """<delta W_1, delta W_2> (Frobenius) of each module that both change, without forming a delta W.

    <B1 A1, B2 A2> = sum((B1^T B2) * (A1 A2^T)) costs O(r1 r2 (in + out)); summed in float64, because angles
    between near-parallel updates live in the last digits.
    """
    scaling = first.scaling * second.scaling
    inners = {}
    for name in first.modules.keys() & second.modules.keys():
        one, two = first.modules[name], second.modules[name]
        products = (one.B.double().T @ two.B.double()) * (one.A.double() @ two.A.double().T)
        inners[name] = scaling * products.sum().item()
    return {name: inners[name] for name in first.modules if name in inners}


def inner(first: Adapter, second: Adapter) -> float:
    """Inner product of the two updates over the whole model; a module that only one changes adds 0."""
    return sum(inner_by_module(first, second).values())


def norm(adapter: Adapter) -> float:
    """Frobenius norm of the update over the whole model."""
    return math.sqrt(max(inner(adapter, adapter), 0.0))


def cosine(first: Adapter, second: Adapter) -> float:
    """Cosine of the angle between the two updates, within [-1, 1]; nan where an update is 0."""
    lengths = norm(first) * norm(second)
    return max(-1.0, min(1.0, inner(first, second) / lengths)) if lengths else math.nan
