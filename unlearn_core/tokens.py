"""A saved tokenizer without transformers and torch: what the dashboard counts and shows tokens with."""

from __future__ import annotations

from pathlib import Path

from unlearn_core.errors import InputError
from unlearn_core.files import read_json


class SavedTokenizer:
    """The tokenizer of a model folder, callable as `encoding.encode` and the engine call a transformers one."""

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise InputError(f"{path}", got=str(error), expected="a tokenizer in Hugging Face's format") from None
        end = (read_json(folder / "tokenizer_config.json") or {}).get("eos_token")
        self.eos_token = end["content"] if isinstance(end, dict) else end
        self.eos_token_id = self._tokenizer.token_to_id(self.eos_token or "")
        if self.eos_token_id is None:
            raise InputError(f"{folder / 'tokenizer_config.json'}", got=f"eos_token = {end!r}",
                             expected="an end token that the tokenizer knows")

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def count(self, text: str) -> int:
        """Number of tokens of a text alone."""
        return len(self(text, add_special_tokens=False)["input_ids"])

    def text(self, token: int) -> str:
        """What one token stands for; part of a character shows as U+FFFD."""
        return self._tokenizer.decode([token], skip_special_tokens=False)
