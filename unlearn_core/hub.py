"""Models by folder or hub id before they are loaded: their config, and why one cannot be had. Torch-free.

The hub's client, and transformers with it, raises many kinds of errors; here each becomes a sentence with its remedy.
"""

from __future__ import annotations

import json
from pathlib import Path

from unlearn_core.errors import InputError

# The organisers of SemEval-2025 Task 4 publish their models without a tokenizer and name those that go with them
# (https://llmunlearningsemeval2025.github.io, "Tokenizers").
TOKENIZERS = {
    "llmunlearningsemeval2025organization/olmo-finetuned-semeval25-unlearning": "allenai/OLMo-7B-0724-Instruct-hf",
    "llmunlearningsemeval2025organization/olmo-1B-model-semeval25-unlearning": "allenai/OLMo-1B-0724-hf",
}
LAYOUT = "a model saved in Hugging Face's layout"
NAME = "an existing folder or a hub id such as owner/name"
ELSEWHERE = "or download it elsewhere and give its folder"


def where(name_or_path: str) -> str:
    """How messages name the model; an InputError for a path that is not there and for what can be no hub id."""
    path = Path(name_or_path)
    if path.is_dir():
        return f"model folder {path}"
    if path.is_absolute() or name_or_path.startswith(".") or name_or_path.count("/") > 1:
        raise InputError("model", got=name_or_path, expected=NAME)
    return f"hub model {name_or_path}"


def config(name_or_path: str) -> dict:
    """`config.json` of a folder, or of a hub model, which is downloaded unless it lies in the cache.

    An InputError where it cannot be had, is no JSON object, or belongs to quantised weights.
    """
    place, path = where(name_or_path), Path(name_or_path) / "config.json"
    if path.parent.is_dir():
        return _read(path, place)
    import huggingface_hub

    try:
        return _read(Path(huggingface_hub.hf_hub_download(name_or_path, "config.json")), place)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises the errors of several HTTP libraries
        raise refusal(name_or_path, error) from None


def cached_config(name: str) -> dict | None:
    """`config.json` of a hub model whose config lies in the cache, None for another one. Asks nobody."""
    import huggingface_hub

    place = where(name)
    try:
        found = huggingface_hub.try_to_load_from_cache(name, "config.json")
    except huggingface_hub.errors.HFValidationError as error:
        raise refusal(name, error) from None
    return _read(Path(found), place) if isinstance(found, str) else None


def _read(path: Path, place: str) -> dict:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(place, got="no config.json", expected=LAYOUT) from None
    except (OSError, ValueError) as error:
        raise InputError(place, got=f"a config.json that cannot be read ({error})", expected=LAYOUT) from None
    if not isinstance(found, dict):
        raise InputError(place, got="a config.json that is no JSON object", expected=LAYOUT)
    _refuse_quantised(place, found)
    return found


def _refuse_quantised(place: str, found: dict) -> None:
    """Training adds to the weights, merging and export write them: neither can be done to packed ones."""
    key = next((key for key in ("quantization_config", "compression_config") if found.get(key)), None)
    if key is not None:
        about = found[key] if isinstance(found[key], dict) else {}
        raise InputError(place, got=f"weights quantised by {about.get('quant_method') or 'an unnamed method'} ({key})",
                         expected="weights in bf16, fp16 or fp32, which an update can be merged into",
                         fix="give the model that it was made from, or load it in transformers, call "
                             "model.dequantize() and save it with its tokenizer")


# ---- why a model cannot be had -------------------------------------------------------------------------------

def refusal(name_or_path: str, error: Exception) -> InputError:
    """What to say where loading failed: the hub's own reason where it is one, else what the library says."""
    place = where(name_or_path)
    cause = None if place.startswith("model folder") else _hubs_own(error)
    if cause is not None:
        return InputError(place, **_reason(name_or_path, cause))
    return InputError(place, got=str(error).strip() or type(error).__name__,
                      expected="a causal language model with its tokenizer",
                      fix="check that config, weights (safetensors) and tokenizer are all there")


def _hubs_own(error: BaseException | None) -> BaseException | None:
    """The error of the hub's client in a chain of errors; transformers wraps it."""
    while error is not None and type(error).__module__ != "huggingface_hub.errors":
        error = error.__cause__ or error.__context__
    return error


def _reason(name: str, error: BaseException) -> dict[str, str]:
    """got, expected and fix of an error of the hub's client."""
    from huggingface_hub import constants, errors

    page, status = f"{constants.ENDPOINT}/{name}", _status(error)
    if isinstance(error, errors.HFValidationError):
        return {"got": str(error), "expected": NAME}
    if isinstance(error, errors.GatedRepoError):
        return {"got": f"a gated model that is not open to you (HTTP {status})", "expected": "access to it",
                "fix": f"ask for it at {page} and log in with: hf auth login (or set HF_TOKEN); {ELSEWHERE}"}
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return {"got": f"no model of this name, or a private one (HTTP {status})", "expected": "the id of a model",
                "fix": f"look at {page}; for a private one log in with: hf auth login (or set HF_TOKEN)"}
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return {"got": "no config.json, or not all of its files (HTTP 404)", "expected": LAYOUT}
    if constants.HF_HUB_OFFLINE:
        return {"got": "HF_HUB_OFFLINE, and nothing of it in the cache",
                "expected": f"it in {constants.HF_HUB_CACHE}, or a network",
                "fix": f"unset HF_HUB_OFFLINE; or where there is a network: hf download {name} --local-dir FOLDER, "
                       "and give that folder"}
    return {"got": f"no model from {constants.ENDPOINT} ({f'HTTP {status}' if status else 'no connection'})",
            "expected": f"a hub that can be reached, or it in {constants.HF_HUB_CACHE}",
            "fix": f"check network, proxy and HF_ENDPOINT; {ELSEWHERE}"}


def _status(error: BaseException | None) -> int | None:
    """HTTP status of the answer that an error, or one that it came from, is about."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status
        error = error.__cause__ or error.__context__
    return None

