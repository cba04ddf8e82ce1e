"""Plain words beside the sections of the page Robustness: how to read them, and what they cannot show."""

from __future__ import annotations

import streamlit as st

from pages import _widgets

READING = {
    "verdict": """
Each gate is one question to the model that would be handed out. A gate that fails decides the verdict alone, whatever
the others say. **Not measured is never a pass**: the verdict stays incomplete until somebody has looked.

- *Threshold*: where the gate shuts. It is stored with the run before the test half of the documents is read; every
  later change stands below the verdict.
- *Interval*: 95 %. Beside a zero stands what could be there all the same, with so few people or documents.
- The best verdict there is says that no leak was found, under what was tried. It never says *forgotten*.
""",
    "controls": """
An attack that finds nothing has told nothing until one knows that it *can* find something.

- **Positive control**: the base, which has learned the documents. Only where the attack finds them there does it work.
- **Negative control**: a model that never saw them. What the attack "finds" in it is what it would find anyway, for
  instance because the documents are easier than the held-out ones.
- **PrivLeak**: the official attack's AUC in percent of what such a model leaves; 0 is ideal, below 0 still recognised.
- **Forget quality**: is the model as unsure about wrong answers as one that never saw the right ones? A small D.
""",
    "probes": """
A model that keeps silent may still know. Each probe changes something and asks again, the same of a model that knows
(base) and of one that never did (the control).

- **Relearning**: some steps of training on a part of forget; asked is the *other* part. If it comes back faster than
  in the control, it was never gone. It overstates robustness for facts that were fine-tuned in.
- **Quantisation**: the weights rounded to 8 and 4 bits, as people do to save memory. A small change of weights that
  hid the facts may be rounded away; 4 bits decide.
- **Prompts**: other words, a friendly beginning, another frame. The worst of all that were tried counts.
- **Shadows**: many models trained and unlearned alike, with and without each document, tell how its loss looks in
  either case. The strongest attack here, and only possible where models are cheap.
""",
    "depth": """
Inside the base, at each layer, the states on an answer are replaced by those of another model, and the base goes on
from there. If its answer suffers, that layer of the other model no longer holds it.

- **D1**: what the states of a model that never saw forget cost. Where it is clearly above 0, the base keeps the answer
  in that layer.
- **D2**: what those of the unlearned model cost. As high as D1: it is gone there; 0: it still sits there, untouched.
- **Depth score**: 1 as in the control, 0 as in the base. Below it stands how much the weights of each layer were
  changed: a large change at the end may hide what earlier layers still hold.
""",
}
LIMITS = """
- It says nothing about prompts, attacks and readers that were not tried, and better attacks will come.
- It holds for these documents and people. Copies of them elsewhere in the training data are not looked for.
- The run folder itself still holds what was to go: the base, both parents' adapters, checkpoints, recorded answers and
  samples. The evidence file lists them.
- An adapter is not erasure: switched off, the base is back. Only merged weights (`export`) may be handed out.
- Relearning and the shadow attack are as strong as their training was long.
- A control that never saw the documents is needed to tell forgetting from never having known; where the untrained
  model stands in for a retrained one, the differences are larger than what forgetting alone would make.
"""


def explain(section: str) -> None:
    """How to read the section, and what all of it does not show."""
    with _widgets.folded("How to read this", key="robust_reading") as opened:
        if opened.open:
            st.markdown(READING[section])
    st.subheader("What this does not show")
    st.markdown(LIMITS)
