"""What the steps of the story show beside their finding: where to look further, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from unlearn_core import launching
from unlearn_core.store import Run


@dataclass(frozen=True)
class Step:
    """One step. `key`: of its finding. `page` with `view` (query parameters) shows more; `how`: what is measured, in
    plain words; `commands` measure it; `trained`: it is about training or merging."""

    key: str
    page: str
    label: str
    how: str
    commands: Callable[[Run], list[str]]
    view: dict[str, str] = field(default_factory=dict)
    trained: bool = False


def _evaluate(run: Run) -> list[str]:
    return [launching.command_line(["evaluate", run.id])]


STEPS = (
    Step("knew", "metrics", "All scores on Metrics",
         "The model answers prompts about every document that is to be forgotten. Its score is the mean of six: how "
         "much of the continuations it repeats (ROUGE-L recall) and how many questions it answers exactly, for "
         "stories, people and biographies. 1: everything. A model that never saw them shows what guessing gives.",
         _evaluate, {"metrics_section": "Scores"}),
    Step("over", "metrics", "The attack on Metrics",
         "An attack looks at the loss of whole documents. AUC is the chance that a document to be forgotten has a "
         "lower loss than an unseen one: 1, still recognised; 0.5, no difference, which is ideal; 0, harder than any "
         "unseen text, which gives it away as well. Forgetting too much costs what must stay.",
         _evaluate, {"metrics_section": "Attack"}, trained=True),
    Step("under", "generations", "What it still writes, on Generations",
         "The same attack and the same prompts. A model that forgets too little keeps what must stay, and with it "
         "answers that should be gone: forget scores above those of a model that never saw them.",
         _evaluate, trained=True),
    Step("merge", "merge", "Methods, densities and controls on Merge",
         "The merge takes both weight changes: TIES drops the small entries, lets the larger sum decide each sign, and "
         "averages what agrees. Task Aggregate is the harmonic mean of twelve terms, so one bad term pulls it down. "
         "A simpler update at the same AUC is the honest control.",
         lambda run: [*_evaluate(run), launching.command_line(["balance", run.id])], trained=True),
    Step("weights", "weights", "Every matrix on Weights",
         "Each model changes the base's matrices by ΔW. Its size is the Frobenius norm, here as a share of the "
         "matrix's own norm. The angle between two random changes is 90°.",
         lambda run: [launching.command_line(["weights", run.id])], {"weights_section": "Where"}, trained=True),
    Step("forgotten", "leaks", "Whose data, field by field, on Leaks",
         "The same prompts as at the start, and every recorded answer is read for personal data in whatever form. The "
         "bound says how many people could be given away although none was seen: few people leave it wide.",
         lambda run: [*_evaluate(run), launching.command_line(["samples", run.id])], {"leaks_section": "Who"}),
    Step("missed", "metrics", "Every attack on Metrics",
         "Other attacks look at the least likely tokens (Min-K%), compare them with the vocabulary (Min-K%++), with a "
         "compressor (zlib) or with a model that never saw the text (reference). Besides: what inner layers still "
         "know, questions without options, and answers that are broken rather than forgetful.",
         _evaluate, {"metrics_section": "Attack", "metrics_attack_view": "Every attack"}),
    Step("verdict", "robustness", "Every gate and its reason on Robustness",
         "Ten questions with thresholds; nine of them can veto. What was not measured does not pass. The most that is "
         "said is that no leak was found, under what, and with which bound.",
         lambda run: [f"python -m analysis.evidence {run.id} --out evidence",
                      launching.command_line(["verify", run.id])], {"robust_section": "Verdict"}),
)


def steps(brought: bool) -> list[Step]:
    """All steps, or for a run that brought its models those that are not about training and merging."""
    return [step for step in STEPS if not (brought and step.trained)]
