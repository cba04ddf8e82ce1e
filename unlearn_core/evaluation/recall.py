"""How much of some items a model still gives, in one short list of numbers: what every probe asks before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.data.items import Item
from unlearn_core.data.persons import Person
from unlearn_core.evaluation import leaks, score
from unlearn_core.evaluation.generation import generate
from unlearn_core.evaluation.memory import item_memory
from unlearn_core.vocabulary import OFFICIAL, QA, SC

MEASURES = {
    "rouge_l": "ROUGE-L recall of the completions",
    "exact_match": "Questions answered exactly",
    "extraction_strength": "Extraction strength of the answers",
    "probability": "Probability of the answers, per token",
    "leaking": "People of whom something is given away",
}


def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], *,
           people: Mapping[str, Person], max_new_tokens: int, batch_size: int = 64, asked: Sequence[str] | None = None
           ) -> list[dict]:
    """One row per measure of `MEASURES`: measure, value (None: nothing to measure it on), low, high (95 %, documents or
    persons resampled), n (of these).

    `asked`: other prompts than the items' own, one per item, for what is generated; what is teacher-forced keeps the
    items' prompts. `people`: as `persons.persons` finds them in all of the run's items, so that what follows from a
    name is learned from all of them.
    """
    prompts = [item.prompt for item in items] if asked is None else list(asked)
    written = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
    answers = [{"document": item.document, "prompt": prompt, "generation": generation.text}
               for item, prompt, generation in zip(items, prompts, written, strict=True)]
    values: dict[str, list[tuple[float, str]]] = {name: [] for name in MEASURES}
    for item, row in zip(items, answers, strict=True):
        value = score.official_value(item.kind, item.answer, row["generation"])
        values[OFFICIAL[item.kind]].append((value, item.document))
    if asked is None:
        for item, found in zip(items, item_memory(model, tokenizer, items, batch_size=batch_size), strict=True):
            for name in ("extraction_strength", "probability"):
                if found[name] is not None:
                    values[name].append((found[name], item.document))
    values["leaking"] = [(float(given), document) for document, given in leaks.given_away(answers, people).items()]
    return [{"measure": name, **_summary(own, score.PRIOR[QA if name in ("exact_match", "leaking") else SC])}
            for name, own in values.items()]


def _summary(own: list[tuple[float, str]], prior: float) -> dict:
    if not own:
        return {"value": None, "low": None, "high": None, "n": 0}
    values, documents = zip(*own, strict=True)
    low, high = score.mean_interval(values, documents, prior)
    return {"value": sum(values) / len(values), "low": low, "high": high, "n": len(set(documents))}
