"""What the parts of the generations page share: texts with marks, badges, and one card per model, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import streamlit as st

from analysis import text_marks, texts, theme
from pages import _widgets
from unlearn_core.host import AT_STEP

# How a marked piece looks: never colour alone.
LOOKS = {text_marks.UNMARKED: "{}", text_marks.OVERLAP: ":green-background[**{}**]",
         text_marks.INSERTED: ":orange-background[**{}**]", text_marks.DELETED: ":gray[~~{}~~]",
         text_marks.GIVEN_AWAY: ":red-background[**{}**]",
         **dict(zip((name for _, name in text_marks.CERTAINTY), (
             "{}", ":gray-background[{}]", ":blue-background[*{}*]", ":violet-background[**{}**]",
             ":orange-background[***{}***]"), strict=True))}
GLYPHS = {"untrained": ":violet[○]", "base": ":gray[●]", "model_1": ":blue[■]", "model_2": ":orange[▲]",
          "merged": ":green[◆]", "tested": ":green[◊]", "retrained": ":gray[☆]"}  # as the markers of the charts
# Pixels of a card by the number of cards: four stand in a row of a window of 1400, two in one of 1000.
NARROWEST, WIDTHS = 222, {1: "stretch", 2: 460, 3: 302}
BREAK, SPACE = " ⏎ ", "·"
_ARROW = re.compile(r"(?<=[-<=~>])(?=[-=>])")  # Streamlit would draw "->" as an arrow although it is escaped


def marked(pieces: Iterable[text_marks.Piece]) -> str:
    """Pieces of a text that is not our own as Markdown: each in the look of its mark, with nothing added or lost but
    the number of blanks in a row. A line's end shows as ⏎, a marked blank as ·."""
    return "".join(BREAK.join(_line(line, mark) for line in text.split("\n")) for text, mark in pieces).strip()


def _line(text: str, mark: str) -> str:
    core = text.strip()
    if not core:
        return LOOKS[mark].format(SPACE) if text and LOOKS[mark] != "{}" else " " * bool(text)
    shown = LOOKS[mark].format(_widgets.plain(_ARROW.sub(_widgets.WORD_JOINER, core)))
    return " " * (text[0].isspace()) + shown + " " * (text[-1].isspace())


def show(pieces: Sequence[text_marks.Piece]) -> None:
    """A marked text, or that it is empty."""
    if any(piece.text for piece in pieces):
        st.markdown(marked(pieces))
    else:
        st.caption("an empty text")


def legend(marks: Iterable[str], words: Mapping[str, str]) -> str:
    """What the marks of a view mean, for a caption; `words` by mark."""
    return "Marks: " + ", ".join(LOOKS[mark].format(words[mark]) for mark in marks) + "; ⏎ is a line's end."


CERTAINTY_WORDS = {name: f"{name} (p ≥ {least:g})" if least else name for least, name in text_marks.CERTAINTY}


def label(model: str) -> str:
    """Name of a model or checkpoint for a reader, e.g. "model_1@120" -> "Model 1 at step 120"."""
    name, _, step = model.partition(AT_STEP)
    return theme.short_label(name) + (f" at step {step}" if step else "")


def show_badges(row: Mapping) -> None:
    """Badges of a row, those that ask for attention in orange and with a warning sign."""
    found = texts.badges(row)
    if found:
        st.markdown(" ".join(
            f":orange-badge[:material/warning: {_widgets.plain(badge.text)}]" if badge.warns else
            f":gray-badge[{_widgets.plain(badge.text)}]" for badge in found))


def cards(models: Sequence[str], body: Callable[[str], None], *, stacked: bool) -> None:
    """A bordered card with the name of each model, filled by `body(model)`; side by side, as many as have room, unless
    `stacked`."""
    width = "stretch" if stacked else WIDTHS.get(len(models), NARROWEST)
    with st.container(horizontal=not stacked, gap="small"):
        for model in models:
            with st.container(border=True, width=width):
                glyph = GLYPHS.get(model.partition(AT_STEP)[0], "")
                st.markdown(f"{glyph} **{_widgets.plain(label(model))}**")
                body(model)
