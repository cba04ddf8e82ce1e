"""HTML pages that stand alone: nothing is fetched from elsewhere, every text is escaped; light, dark and on paper."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape

from analysis import report_parts as parts
from analysis import report_values as values

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5b5b61; --line: #d4d4d8; --page: #ffffff; --band: #f4f4f5;
  --passed: #0b6e4f; --failed: #b3261e; --missing: #7a5b00; --link: #00674c; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --soft: #a5a5ad; --line: #3c3c42; --page: #18181b;
  --band: #242428; --passed: #5cc79b; --failed: #ff8a80; --missing: #e3bf57; --link: #5cc79b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 "Source Sans", "Segoe UI", Helvetica, Arial, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .2rem; }
p { margin: .4rem 0; } ul { margin: .5rem 0; padding-left: 1.25rem; } li { margin: .2rem 0; }
a { color: var(--link); } .soft { color: var(--soft); }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.headline { border-left: .35rem solid var(--missing); background: var(--band); padding: .7rem 1rem; font-size: 1.1rem; }
.headline.failed { border-color: var(--failed); } .headline.passed { border-color: var(--passed); }
.todo { border-left: .2rem solid var(--missing); padding: .1rem 0 .1rem .8rem; margin: .6rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1rem; }
caption { text-align: left; color: var(--soft); padding: .2rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; min-width: 4rem; }
th { min-width: 5rem; overflow-wrap: normal; }
td:first-child { min-width: 8.5rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th.number { white-space: normal; }
.passed { color: var(--passed); } .failed { color: var(--failed); } .missing { color: var(--missing); }
.state { font-weight: 600; white-space: nowrap; } code, pre { font-size: .85em; overflow-wrap: anywhere; }
pre { background: var(--band); padding: .7rem 1rem; white-space: pre-wrap; margin: .4rem 0; }
figure { margin: 1.2rem 0 1.6rem; } figcaption { color: var(--soft); } summary { cursor: pointer; color: var(--soft); }
.plot { width: 100%; margin: .4rem 0; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #999; --page: #fff; --band: #f2f2f2;
  --passed: #0b6e4f; --failed: #b3261e; --missing: #7a5b00; --link: #000; }
  body { max-width: none; padding: 0; zoom: .8; } h2, h3 { break-after: avoid; } tr { break-inside: avoid; }
  thead { display: table-header-group; } .scroll { overflow: visible; } figure, .short, pre { break-inside: avoid; }
  th, td, td:first-child { min-width: 0; overflow-wrap: break-word; } .paged section + section { break-before: page; }
  details:not([open]), nav, .modebar { display: none; } }
@page { margin: 15mm; }
"""
# Draws each chart in the ink of the page, anew for a page of paper and for another choice of light or dark.
DRAW = """
"use strict";
(() => {
  const PAPER = 830;  // pixels that a page of paper has room for at its zoom
  // Plotly would offer to upload a chart to a server of its makers.
  const SETTINGS = {responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: ""};
  const plots = [...document.querySelectorAll(".plot")];
  const ink = () => getComputedStyle(document.body).color;
  for (const plot of plots) {
    const {data, layout} = JSON.parse(plot.nextElementSibling.textContent);
    layout.font = {...layout.font, color: ink()};
    Plotly.newPlot(plot, data, {...layout, autosize: true}, SETTINGS);
  }
  // In a frame without an address of its own, such as a preview, a link would lead to the page around it.
  for (const link of location.protocol === "about:" ? document.querySelectorAll("nav a") : [])
    link.addEventListener("click", event => {
      event.preventDefault();
      document.querySelector(link.hash).scrollIntoView();
    });
  const again = change => plots.forEach(plot => Plotly.relayout(plot, change));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again({"font.color": ink()}));
  addEventListener("beforeprint", () => again({"font.color": "#000", width: PAPER}));
  addEventListener("afterprint", () => again({"font.color": ink(), width: null, autosize: true}));
})();
"""
NARROW = 6  # columns of a table that fits; a wider one may have to be scrolled, by the keyboard too
SHORT = 8  # rows of a table that stays on one page of paper
STATES = {"✓": "passed", "✗": "failed", "◌": "missing"}  # by the sign that a state begins with
HASH = re.compile(r"[0-9a-f]{40,64}")
BOLD = re.compile(r"\*\*(.+?)\*\*")


class Html(str):
    """A piece of a page that is escaped already."""

    __slots__ = ()


def page(title: str, head: Iterable[str], sections: Sequence[parts.Section], *, scripts: Sequence[str] = (),
         paged: bool = False) -> str:
    """A whole page: its head, then the sections, on paper each on a page of its own if `paged`.

    Of scripts, these alone may run: a policy in the page forbids all others, and every connection.
    """
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    policy = (f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
              "base-uri 'none'; form-action 'none'")
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
            f'<body class="{"paged" if paged else ""}">\n'
            + "\n".join([*head, *map(section, sections)])
            + "".join(f"\n<script>{script}</script>" for script in scripts) + "\n</body>\n</html>\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def text(value: object) -> Html:
    """A value as escaped text."""
    return value if isinstance(value, Html) else Html(escape(values.cell(value)))


def sentence(line: str) -> Html:
    """A sentence, in which **stars** make words bold."""
    return Html(BOLD.sub(r"<b>\1</b>", escape(line)))


def section(found: parts.Section) -> str:
    inner = "\n".join(map(part, found.parts))
    return f'<section id="{text(found.key)}">\n<h2>{text(found.title)}</h2>\n{inner}\n</section>'


def contents(sections: Sequence[parts.Section]) -> str:
    """Links to the sections."""
    links = "".join(f'<li><a href="#{text(one.key)}">{text(one.title)}</a></li>' for one in sections)
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


# ---- parts -----------------------------------------------------------------------------------------------------

def part(found: parts.Part) -> str:
    """A part of a section."""
    match found:
        case parts.Headline():
            return f'<p class="headline {text(found.state)}">{sentence(found.text)}</p>'
        case parts.Heading():
            return f"<h3>{text(found.text)}</h3>"
        case parts.Note():
            return f"<p>{sentence(found.text)}</p>"
        case parts.Says():
            return bullets(map(sentence, found.lines))
        case parts.Findings():
            return bullets(map(_finding, found.found))
        case parts.Missing():
            return f'<div class="todo"><p>{sentence(found.what)}</p>{_command(found.command)}</div>'
        case parts.Command():
            return f"<p>{sentence(found.what)}</p>{_command(found.command)}"
        case parts.Code():
            return f"<details><summary>{text(found.label)}</summary><pre>{text(found.text)}</pre></details>"
        case parts.Table():
            return table(found)
        case parts.Chart():
            return _chart(found)


def bullets(lines: Iterable[object]) -> str:
    found = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul>{found}</ul>" if found else ""


def _finding(found: object) -> Html:
    todo = (f'<div class="short"><p class="soft">To measure what is missing:</p>{_command(found.todo)}</div>'
            if found.todo else "")
    return Html(f"<b>{text(found.title)}</b> {sentence(found.text)}{todo}")


def _command(command: str) -> str:
    return f"<pre>{text(command)}</pre>" if command else ""


def table(found: parts.Table) -> str:
    """A table with a caption; one line where there is nothing to show."""
    whole = found.reading()
    frame, left_out = values.shortened(whole)
    caption = sentence(" ".join(filter(None, [found.caption, left_out])))
    if frame.empty:
        return f'<p class="soft">{caption} None.</p>'
    looks = [' class="number"' if values.is_numeric(whole[name]) else "" for name in whole]
    head = "".join(f'<th scope="col"{look}>{text(name)}</th>' for name, look in zip(frame, looks, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td{look}>{_cell(value)}</td>" for value, look in zip(row, looks, strict=True))
                     + "</tr>" for row in values.texts(frame).itertuples(index=False, name=None))
    look = "scroll" if len(frame) > SHORT else "scroll short"
    reached = f' tabindex="0" role="region" aria-label="{text(found.caption)}"' if len(looks) > NARROW else ""
    return (f'<div class="{look}"{reached}><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def _cell(value: str) -> Html:
    if value[:1] in STATES:
        return Html(f'<span class="state {STATES[value[0]]}">{escape(value)}</span>')
    return Html(f"<code>{value}</code>") if HASH.fullmatch(value) else text(value)


def _chart(found: parts.Chart) -> str:
    """A chart as JSON beside the place where `DRAW` draws it."""
    drawing = json.dumps(found.drawing, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    height = int(found.drawing["layout"].get("height", 450))
    return (f'<figure>\n<h3>{text(found.title)}</h3>\n<div class="plot" role="img" aria-label="{text(found.alt)}" '
            f'style="height:{height}px"></div><script type="application/json">{drawing}</script>\n'
            f"<noscript><p>The picture needs JavaScript; its table does not.</p></noscript>\n"
            f"<figcaption>{sentence(found.caption)}</figcaption>\n"
            f"<details><summary>Table behind this chart</summary>{table(found.table)}</details>\n</figure>")
