"""The report of a run to take away: findings, charts and tables in one file that opens anywhere, or as Markdown.

    python -m analysis.report RUN --out report.html [--sections summary,scores] [--format html|md] [--title TITLE]
        [--data DIR] [--personal] [--runs-dir DIR]

Its numbers are those that the pages show. The HTML file needs nothing else: no connection, no server. --data writes
every table as CSV and all numbers as one JSON file. Names and values of people are masked unless --personal.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from analysis import (
    evidence,
    html,
    report_about,
    report_data,
    report_holds,
    report_leaks,
    report_markdown,
    report_scores,
    report_training,
    report_weights,
)
from analysis.command import exit_code
from analysis.evidence_html import time
from analysis.report_material import Material
from analysis.report_parts import Missing, Part, Section, covered, without_commands
from unlearn_core.errors import InputError
from unlearn_core.files import replacing
from unlearn_core.store import DEFAULT_RUNS_DIR, Run, Store, now

SECTIONS: dict[str, tuple[str, Callable[[Material], Iterator[Part]]]] = {
    "summary": ("Summary", report_scores.summary),
    "scores": ("Scores", report_scores.scores),
    "trajectory": ("Training", report_training.show),
    "merge": ("Merge", report_training.merge),
    "weights": ("Weights", report_weights.show),
    "conflicts": ("Sign conflicts", report_weights.conflicts),
    "metrics": ("What metrics say and miss", report_scores.metrics),
    "leaks": ("Leaks", report_leaks.show),
    "robustness": ("Robustness", report_holds.robustness),
    "evidence": ("Evidence", report_holds.evidence),
    "definitions": ("Definitions", report_about.definitions),
    "limits": ("Limits", report_about.limits),
    "manifest": ("Manifest", report_about.manifest)}
FORMATS = {"html": "HTML", "md": "Markdown"}
DEFAULT_TITLE = "Report on unlearning"


@dataclass(frozen=True)
class Report:
    """What `make` found; `about` has the lines below the title."""

    run: str
    title: str
    about: tuple[str, ...]
    made: str
    masked: bool
    sections: tuple[Section, ...]


def make(run: Run, sections: Sequence[str] = tuple(SECTIONS), *, title: str = "", personal: bool = False) -> Report:
    """The report of a run with these of `SECTIONS`, in this order; people are named if `personal`.

    What cannot be read is said in its section. An InputError for a section that there is not, and for a run that has
    no readable manifest or recipe.
    """
    unknown = [key for key in sections if key not in SECTIONS]
    if unknown or not sections:
        raise InputError("sections of the report", got=", ".join(unknown) or "none",
                         expected=f"some of {', '.join(SECTIONS)}")
    material = Material(run, personal)
    report = Report(run.id, title or run.meta()["title"] or f"{DEFAULT_TITLE}: {run.id}", _about(run, personal), now(),
                    not personal, tuple(_section(material, key) for key in dict.fromkeys(sections)))
    return report if personal else covered(report, evidence.Cover(material))


def _section(material: Material, key: str) -> Section:
    title, show = SECTIONS[key]
    parts = []
    try:
        parts.extend(show(material))
    except InputError as error:
        parts.append(Missing(f"Not readable: {error}"))
    recording = bool(material.run.recorded())
    return Section(key, title, tuple(map(without_commands, parts) if recording else parts))


def _about(run: Run, personal: bool) -> tuple[str, ...]:
    recipe, info, recorded = run.recipe(), run.info(), run.recorded()
    said = [f"Run {run.id} of {time(info['created'])}, recipe {recipe.name}, seed {recipe.seed}, on "
            f"{info.get('device') or 'a device that is not recorded'}; {run.status()['state']}."]
    if recorded:
        said.append(f"A recording of {time(recorded['when'])}. {recorded['scale']} Nothing more can be measured on it; "
                    f"a run like it is made by: {recorded['again']}")
    return (*said, "People are named: keep it safe." if personal else "Names and values of people are masked.")


# ---- as files --------------------------------------------------------------------------------------------------

def as_html(report: Report) -> str:
    """The report as one page that needs nothing else."""
    head = [f"<h1>{html.text(report.title)}</h1>",
            *(f'<p class="soft">{html.text(line)}</p>' for line in _head(report)), html.contents(report.sections)]
    return html.page(report.title, head, report.sections, scripts=(get_plotlyjs(), html.DRAW), paged=True)


def as_markdown(report: Report) -> str:
    """The same sentences and tables as Markdown."""
    return report_markdown.page(report.title, _head(report), report.sections)


def _head(report: Report) -> tuple[str, ...]:
    first, *rest = report.about
    return (f"{first} This report: {time(report.made)}.", *rest)


WRITERS = {"html": as_html, "md": as_markdown}


def write(report: Report, out: Path, form: str = "html") -> None:
    """The report as a new file in one of `FORMATS`, whole or not at all; an InputError where it exists."""
    report_data.refuse_taken(out, "--out")
    with replacing(out) as file:
        file.write(WRITERS[form](report))


# ---- command ---------------------------------------------------------------------------------------------------

def command(run: str, sections: Sequence[str], *, title: str = "", personal: bool = False, form: str = "html",
            data: bool = False) -> list[str]:
    """The arguments that give the same report from a terminal."""
    return ["python", "-m", "analysis.report", run, "--out", f"report.{form}",
            *(["--sections", ",".join(sections)] if list(sections) != list(SECTIONS) else []),
            *(["--format", form] if form != "html" else []), *(["--title", title] if title else []),
            *(["--data", "report-data"] if data else []), *(["--personal"] if personal else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="id or folder of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to make")
    parser.add_argument("--format", choices=FORMATS, default="html", help="of that file (default: html)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder to make, for all tables as CSV and JSON")
    parser.add_argument("--sections", default=",".join(SECTIONS), metavar="A,B",
                        help=f"which ones, in which order (default: {','.join(SECTIONS)})")
    parser.add_argument("--title", default="", help="of the report (default: that of the run)")
    parser.add_argument("--personal", action="store_true", help="show names and values of people")
    parser.add_argument("--runs-dir", default=os.environ.get("LETHE_RUNS", DEFAULT_RUNS_DIR), metavar="DIR",
                        help="folder of the runs (default: $LETHE_RUNS or runs)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Write the report of a run; the exit code (see `exit_code`)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not (options.out or options.data):
        parser.error("name a file with --out, a folder with --data, or both")
    return exit_code(lambda: _carry_out(options))


def _carry_out(options: argparse.Namespace) -> None:
    for path, name in ((options.out, "--out"), (options.data, "--data")):  # before the work begins
        report_data.refuse_taken(path, name)
    report = make(Store(options.runs_dir).open(options.run), options.sections.split(","), title=options.title,
                  personal=options.personal)
    if options.out:
        write(report, options.out, options.format)
    if options.data:
        report_data.write(report, options.data)
    print("\n".join(f"report: {path}" for path in (options.out, options.data) if path))


if __name__ == "__main__":
    sys.exit(main())
