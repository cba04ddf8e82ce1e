"""A report as Markdown: the same sentences and tables, without pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from analysis import report_parts as parts
from analysis import report_values as values

# Signs that could make HTML, a link, an image, code or a table's cell of a text that is none; stars may make it bold.
SIGNS = re.compile(r"([\\`<>\[\]|])")


def page(title: str, head: Iterable[str], sections: Sequence[parts.Section]) -> str:
    """A whole report."""
    lines = [f"# {plain(title)}", *map(plain, head)]
    for section in sections:
        lines += [f"## {plain(section.title)}", *filter(None, map(part, section.parts))]
    return "\n\n".join(lines) + "\n"


def plain(value: object) -> str:
    """A value as one line in which Markdown sees nothing but stars."""
    return SIGNS.sub(r"\\\1", " ".join(values.cell(value).split()))


def part(found: parts.Part) -> str:
    """A part of a section."""
    match found:
        case parts.Headline():
            return f"> {plain(found.text)}"
        case parts.Heading():
            return f"### {plain(found.text)}"
        case parts.Note():
            return plain(found.text)
        case parts.Says():
            return _bullets(map(plain, found.lines))
        case parts.Findings():
            return _bullets(f"**{plain(one.title)}** {plain(one.text)}" + _todo(one.todo) for one in found.found)
        case parts.Missing() | parts.Command():
            return plain(found.what) + (f"\n\n{_code(found.command)}" if found.command else "")
        case parts.Code():
            return f"{plain(found.label)}:\n\n{_code(found.text)}"
        case parts.Table():
            return table(found)
        case parts.Chart():
            return f"### {plain(found.title)}\n\n{plain(found.caption)}\n\n{table(found.table)}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _todo(command: str) -> str:
    return f" To measure what is missing: {plain('; '.join(command.splitlines()))}" if command else ""


def _code(text: str) -> str:
    """A block that no line of the text can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def table(found: parts.Table) -> str:
    """A table under its caption; one line where there is nothing to show."""
    frame, left_out = values.shortened(found.reading())
    caption = " ".join(filter(None, [plain(found.caption), left_out]))
    if frame.empty:
        return f"{caption} None."
    rows = [list(frame), ["---"] * len(frame.columns), *values.texts(frame).itertuples(index=False, name=None)]
    return caption + "\n\n" + "\n".join(f"| {' | '.join(map(plain, row))} |" for row in rows)
