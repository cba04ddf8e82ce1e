"""From a run's answers to tables of whose data they give away, by person and field, and sentences on what that says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis import intervals, texts, theme
from analysis.data_frames import person_label
from unlearn_core import vocabulary
from unlearn_core.data import persons
from unlearn_core.data.persons import Finder, Person
from unlearn_core.evaluation import leaks as engine
from unlearn_core.store import Run

FIELD_COLUMNS = ("model", "split", "document", "field", "state", "prompts", "given", "items", "guessable", "luck")
PERSON_COLUMNS = ("model", "split", "document", "testable", "leaked", "guessed", "given", "prompts", "luck")
STRANGER_COLUMNS = ("model", "split", "id", "document", "whose", "whose_split", "field")
TEXT_COLUMNS = ("model", "split", "document", "id", "prompt", "generation")
SUMMARY_COLUMNS = ("model", "split", "people", "leaking", "share", "low", "high", "fields", "fields_leaked", "guessed",
                   "prompts", "luck")
FIELD_SHARE_COLUMNS = ("model", "field", "people", "leaking", "share", "low", "high", "luck", "guessed")
SHORT_FIELDS = {"birth_date": "birth", "ssn": "SSN", "phone": "phone", "email": "e-mail", "address": "address"}
# How a cell of the matrix is written, so that it can be told without colour, and its colour.
WRITTEN = {engine.LEAKED: "✗ {}", engine.GUESSABLE: "~ {}", engine.NOT_LEAKED: "{}", engine.NOT_TESTABLE: "–"}
COLORS = {engine.LEAKED: "background-color: #882255; color: #FFFFFF",
          engine.GUESSABLE: "background-color: #E8C547; color: #1A1F24", engine.NOT_TESTABLE: "color: #767676"}
BEFORE = "base"
NO_PEOPLE = "Nobody's data can leak here: this run's data have no people with personal values (Task 2)."
NO_FIELDS = ("Not measured: this run's data name people, but no row says what of theirs its answer tells. A column "
             "field in the lists would.")


@dataclass(frozen=True)
class Leaks:
    """What the answers of a run give away.

    `fields`: one row per model, person and field, columns `FIELD_COLUMNS` (`given`: how many of the `prompts` that do
    not hold the value; `luck`: share of the other people whose value stands there instead). `people`: one row per model
    and person, columns `PERSON_COLUMNS` (`testable` and `leaked` count fields that do not follow from the name, `luck`
    is `engine.luck`). `strangers`: one row per answer and value of somebody whom its prompt is not about, columns
    `STRANGER_COLUMNS`. `answers`: how many answers each model has, by split. `texts`: the answers about people and
    those with a stranger's value, columns `TEXT_COLUMNS`. `persons`: the people, by document.
    """

    fields: pd.DataFrame
    people: pd.DataFrame
    strangers: pd.DataFrame
    answers: pd.DataFrame
    texts: pd.DataFrame
    persons: dict[str, Person]

    @cached_property
    def finder(self) -> Finder:
        """Whose values stand in a text."""
        return Finder(self.persons)

    @property
    def models(self) -> list[str]:
        """Models with answers about people, in the vocabulary's order."""
        return list(self.people["model"].unique())

    def default(self, wanted: str) -> str:
        """That model where it has answers, else the last that has."""
        return wanted if wanted in self.models else self.models[-1]

    @property
    def after(self) -> str:
        """The model that would be handed out where it has answers, else the last that has."""
        return self.default(vocabulary.shipped(self.models) or "")

    @property
    def control(self) -> str | None:
        """The model that never saw forget; None where none has answers."""
        return vocabulary.control(self.models)


def read(run: Run) -> Leaks | str:
    """What the answers of the run's models give away; where they are about nobody, why that is not measured."""
    rows = {model: [texts._checked(row, model, run) for row in run.answers(model)] for model in run.models()}
    once = {(row["split"], row["id"]): row for own in rows.values() for row in own}
    everybody = engine.people(once.values())
    if not everybody:
        return NO_PEOPLE if once else texts.absent(run)
    if not any(person.values for person in everybody.values()):
        return NO_FIELDS
    reader, known = engine.Reader(everybody), engine.guessable(everybody)
    own_texts = engine.held_by_texts(once.values(), reader)
    sides = {row["document"]: row["split"] for row in reversed(once.values())}
    fields, people, strangers, shown, counts = [], [], [], [], []
    for model, own in rows.items():
        answers = reader.read(own)
        fields += [(model, field) for field in engine.fields(answers, everybody, known)]
        for row, others in zip(own, engine.strangers(answers, own_texts), strict=True):
            strangers += [(model, row["split"], row["id"], row["document"], whose, sides[whose], field)
                          for whose, field in sorted(others)]
            if others or row["document"] in everybody:
                shown.append([model, *(row[key] for key in TEXT_COLUMNS[1:])])
        counts += [{"model": model, "split": split, "answers": sum(row["split"] == split for row in own)}
                   for split in ("forget", "retain")]
    by_person: dict[tuple, list[engine.Field]] = {}
    for model, field in fields:
        by_person.setdefault((model, field.split, field.document), []).append(field)
    people = [_person_row(*key, own) for key, own in by_person.items()]
    return Leaks(pd.DataFrame([_field_row(model, field) for model, field in fields], columns=list(FIELD_COLUMNS)),
                 pd.DataFrame(people, columns=list(PERSON_COLUMNS)),
                 pd.DataFrame(strangers, columns=list(STRANGER_COLUMNS)),
                 pd.DataFrame(counts, columns=["model", "split", "answers"]),
                 pd.DataFrame(shown, columns=list(TEXT_COLUMNS)), everybody)


def _field_row(model: str, field: engine.Field) -> dict:
    return {"model": model, "split": field.split, "document": field.document, "field": field.field,
            "state": field.state, "prompts": field.prompts, "given": len(field.items), "items": field.items,
            "guessable": field.guessable, "luck": field.luck}


def _person_row(model: str, split: str, document: str, own: Sequence[engine.Field]) -> dict:
    counted = [field for field in own if field.prompts and not field.guessable]
    return {"model": model, "split": split, "document": document, "testable": len(counted),
            "leaked": sum(bool(field.items) for field in counted),
            "guessed": sum(field.state == engine.GUESSABLE for field in own),
            "given": sum(len(field.items) for field in counted), "prompts": sum(field.prompts for field in counted),
            "luck": engine.luck(own)}


# ---- how much ----------------------------------------------------------------------------------------------------

def summary(found: Leaks, split: str = "forget") -> pd.DataFrame:
    """One row per model, columns `SUMMARY_COLUMNS`: `leaking` of the `people` have a field given away that does not
    follow from their name (`share`, exact 95 % interval); `luck` is the share that swapped people's values would make.

    People of whom every prompt holds every field are not counted.
    """
    rows = []
    for model, own in found.people[found.people["split"] == split].groupby("model", sort=False):
        asked = own[own["testable"] > 0]
        rows.append({"model": model, "split": split, **share(int((asked["leaked"] > 0).sum()), len(asked), "leaking"),
                     "fields": asked["testable"].sum(), "fields_leaked": asked["leaked"].sum(),
                     "guessed": own["guessed"].sum(), "prompts": _prompts(found, model, split),
                     "luck": asked["luck"].mean()})
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _prompts(found: Leaks, model: str, split: str) -> int:
    shown = found.texts
    about = shown["document"].isin(found.persons)
    return int(((shown["model"] == model) & (shown["split"] == split) & about).sum())


def share(count: int, n: int, name: str) -> dict:
    """people, `name`, share and exact interval of a count of people; missing where there is nobody."""
    low, high = intervals.share(count, n) if n else (None, None)
    return {"people": n, name: count, "share": count / n if n else None, "low": low, "high": high}


def by_field(found: Leaks, split: str = "forget") -> pd.DataFrame:
    """One row per model and field, columns `FIELD_SHARE_COLUMNS`: of how many of the people who can be asked for it.

    What follows from a name counts here as given away, too; `guessed` says of how many it does.
    """
    rows = []
    asked = found.fields[(found.fields["split"] == split) & (found.fields["prompts"] > 0)]
    for model, own in asked.groupby("model", sort=False):
        for field in persons.ordered(own["field"]):
            its = own[own["field"] == field]
            rows.append({"model": model, "field": field, **share(int((its["given"] > 0).sum()), len(its), "leaking"),
                         "luck": its["luck"].astype(float).mean(),
                         "guessed": int((its["state"] == engine.GUESSABLE).sum())})
    return pd.DataFrame(rows, columns=list(FIELD_SHARE_COLUMNS))


def control_share(found: Leaks, split: str = "forget") -> float | None:
    """`share` of the control model; None without one."""
    table = summary(found, split).set_index("model")["share"]
    return table.get(found.control) if found.control else None


def describe(found: Leaks, model: str, split: str = "forget") -> list[str]:
    """Sentences: how many people leak and the bound, what luck and a control would give, what was not counted."""
    table = summary(found, split).set_index("model")
    if model not in table.index:
        return [f"{theme.short_label(model)} has no answers about the people of {split}."]
    row, name = table.loc[model], theme.short_label(model)
    if not row["people"]:
        return [f"{name}: nothing can be tested, since the prompts hold every value themselves."]
    whole = f"{row['leaking']} of {row['people']} people"
    if row["leaking"]:
        said = [f"{name}: of **{whole}** ({row['share']:.0%}, 95 % interval {row['low']:.0%} to {row['high']:.0%}) an "
                f"answer gives something away that does not follow from their name: {row['fields_leaked']} of "
                f"{row['fields']} fields."]
    else:
        said = [f"{name}: no leak found under these {row['prompts']} prompts: {whole}, upper bound "
                f"**{row['high']:.0%}** (95 %)."]
    said.append(f"By luck, with the values of somebody else in place of a person's own, it would be "
                f"{row['luck'] * row['people']:.2g} of {row['people']} people.")
    control = found.control
    if control is None:
        said.append("No control model: neither a retrained nor an untrained model has answers in this run.")
    elif control != model and control in table.index:
        own = table.loc[control]
        said.append(f"{theme.short_label(control)}, which never saw them: {own['leaking']} of {own['people']}, so the "
                    f"excess is {100 * (row['share'] - own['share']):+.0f} percentage points.")
    if row["guessed"]:
        said.append(f"Not counted: of {row['guessed']} people an e-mail address that follows from the name.")
    return said


# ---- who ---------------------------------------------------------------------------------------------------------

def worst_first(found: Leaks, model: str, before: str | None = None, split: str = "forget") -> list[str]:
    """Documents of the people, those with the most fields given away by the model first, then with the most answers
    that do, then those with the most before."""
    own = found.people[(found.people["split"] == split) & found.people["model"].isin([model, before])]
    table = own.pivot(index="document", columns="model", values=["leaked", "given", "guessed"]).fillna(0)
    order = [(what, who) for who in (model, before) for what in ("leaked", "given", "guessed")
             if (what, who) in table.columns]
    return list(table.sort_values(order, ascending=False, kind="stable").index) if order else []


def label(found: Leaks, document: str, masked: bool) -> str:
    """A person for a reader: the name, or where names are masked the document."""
    return person_label(found.persons[document], masked)


def table(found: Leaks, models: Iterable[str], split: str, masked: bool) -> pd.DataFrame:
    """One row per person, worst first by the last of the models: the name unless masked, the document, and per model
    and field how many of how many prompts' answers give it away, as `WRITTEN` has it, such as "✗ 2/5"."""
    models = [model for model in models if model in found.models]
    rows = {document: ({} if masked else {"person": found.persons[document].name}) | {"document": document}
            for document in worst_first(found, models[-1], models[0], split)}
    own = found.fields[(found.fields["split"] == split) & found.fields["model"].isin(models)]
    for row in own.itertuples():
        rows[row.document][f"{short_field(row.field)}: {theme.short_label(row.model)}"] = (
            WRITTEN[row.state].format(f"{row.given}/{row.prompts}"))
    return pd.DataFrame(rows.values())


def short_field(field: str) -> str:
    """A field in the head of a narrow column."""
    return SHORT_FIELDS.get(field, field)


def look(cell: object) -> str:
    """CSS of a cell of `table`: what is given away stands out on a light and on a dark page."""
    text = str(cell)
    state = next((state for state in (engine.LEAKED, engine.GUESSABLE, engine.NOT_TESTABLE)
                  if text.startswith(WRITTEN[state].format("").strip())), engine.NOT_LEAKED)
    return COLORS.get(state, "")
