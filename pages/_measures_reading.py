"""How to read each section of the metrics page, in plain words."""

from __future__ import annotations

import streamlit as st

from pages import _widgets

READING = {
    "scores": """
Twelve scores say how much of three kinds of documents a model still writes (regurgitation) or answers (knowledge), on
the *forget* side, where 0 is ideal, and on the *retain* side, where 1 is. The **Task Aggregate** is their harmonic
mean, with forget as 1 − score: one bad term pulls it down more than eleven good ones lift it, and a 0 makes it 0.

- **Bars** are 95 % intervals. They count documents (all documents of a person as one), since five questions about one
  person are not five observations. Where bars overlap, do not read the order of the dots; use *Compare*.
- **Chance**: what a fluent text about something else would score on these very items. A forget score *at* this mark is
  what an ignorant model has. *Well below it* the model no longer writes fluent text: look at *Collapse*. A retain score
  near the mark is no sign of knowledge.
- **An empty text** scores 0 everywhere, so it is perfect on forget: good forget scores alone prove nothing.
- **P(0)**: how likely the Task Aggregate would be 0 with other documents of the same kind. Above a few percent it
  hangs on luck.
- **Weakest link**: the term that holds the harmonic mean down, and what fixing it alone would give.
""",
    "compare": """
Two models that answered the same items can be compared item by item, which is much sharper than comparing two bars.

- **A difference** above 0 says that the second model is better. Its interval comes from drawing the documents again,
  the same ones for both models. *Where it contains 0 the two cannot be told apart.*
- **p** asks how often swapping the two models' answers at random would give such a difference. Twelve tests are twelve
  chances to be fooled, so **p by Holm** is corrected for that; a filled mark is below 0.05 after the correction.
- **Runs**: on other data a difference would compare the data, so it is refused. Runs that differ in their seed alone
  show how much of a result is luck.
""",
    "attack": """
An attack gives each document one number and bets that documents with a low one were in the training data. Here it is
tried on the documents to be forgotten against held-out ones of the same kind, which no model ever saw.

- **AUC**: draw a member and an unseen document; how often is the member's number the lower one? *1*: still recognised
  (under-forgetting). *0*: harder than text that the model never saw, which gives it away as well (over-forgetting).
  *0.5*: this attack cannot tell. The organisers score 1 − 2 |AUC − 0.5|, which hides the side.
- **0.5 is not yet forgotten**: half of the documents may be recognised and half be over-forgotten. The *two-sided AUC*
  is above 0.5 then, and the densities show it.
- **Recognised at 1 % false positives** is what matters if an attacker needs to be sure. A few members that stand out
  are a leak even where the AUC looks fine.
- **Another attack may see more**: the official one is only the simplest. The more are tried, the further the best one
  is from 0.5 by luck alone; what is in brackets is not told apart from chance.
- The **reference** attack takes away how hard a text is for a model that never saw it. Where that model is untrained
  noise, it hardly differs from the plain loss.
""",
    "memory": """
What a model writes is not all that it knows. Here it is led through each answer token by token, and asked at every
place what it would have chosen next.

- **Extraction strength**: how much of an answer's end comes right by itself once the model is led up to there. A model
  that needs one wrong token's help at the start still holds the rest.
- **Exact memorisation**: the share of tokens that are its first choice; some are so in any text ("the", "of").
- **Holdout** is the control: texts of the same kind that it never saw. *Forget level with holdout* is what forgetting
  looks like; *below* it the model avoids these texts, which marks them; *above* it something is left.
- **Depth**: after each layer the model's own head is put on its inner state. *High after an early layer and low at the
  end*, on forget but not on holdout, means that the last layers were taught to hide what the early ones still know: a
  little training, or reading the inner state, may bring it back.
- A lens is blunt: *high* is evidence, *low* is not.
""",
    "rouge": """
ROUGE counts words in common with the reference; an exact match asks for the very string. Neither asks whether the fact
was given away.

- **Score low, leaked**: `900 51 4344` for 900514344 gives the number away and scores 0.
- **Score high, not leaked**: "The phone number is ..." with a wrong number has most of the words and none of the facts.
- The fact is looked for in any form: digits with any separators, dates in any order, addresses with abbreviations. What
  the prompt already prints is an echo and does not count, nor does an e-mail address that follows from the name.
- *Not found* means: not in this one greedy answer. The page Leaks asks further.
""",
    "knowledge": """
General knowledge must survive. The organisers ask **MMLU**: four options, one right, so guessing has 0.25. A model that
falls below 0.75 of the base's accuracy, the **gate**, does not count at all.

Multiple choice is easy to keep: a model can point at the right option and no longer say it. So such facts are asked
**openly** too: does the answer contain the right one, is it exactly that? Chance is practically 0 there.

Intervals are exact for the number of questions. A subject with few questions says little.
""",
    "collapse": """
What does a model write instead of what it should have forgotten? Each answer is put into the first that fits:

- **says it**: the reference, or a person's data, is there.
- **refuses**: "I cannot answer that". Refusing is behaviour; the memory may be intact below it (*Memory*, *Attack*).
- **empty**: nothing at all.
- **repeats itself**: "6666666", "the the the"; clearly more than the reference does.
- **one text for many**: the same answer to many prompts, though it is seldom right.
- **other text**: what is left; a model that has forgotten and is healthy lands here.

*Collapsed* means that certainly more than half of the answers repeat themselves or are one text for many. Such a model
has perfect forget scores and has not forgotten selectively; it is broken on these prompts.
""",
}


def explain(section: str) -> None:
    """What a section shows, if its words are here."""
    if section in READING:
        with _widgets.folded("How to read this", key="metrics_reading") as opened:
            if opened.open:
                st.markdown(READING[section])
