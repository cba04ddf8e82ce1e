"""The report: the pages' numbers in every form, nothing from elsewhere, escaped, masked, honest about gaps."""

import base64
import hashlib
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from analysis import (
    findings,
    frames,
    html,
    leaks,
    merging,
    official,
    report,
    report_data,
    report_markdown,
    report_parts,
    report_values,
    signs,
    training,
    trajectory,
    weights,
)
from analysis.report_parts import Chart, Missing, Section, Table
from tests import browser as b
from tests import (
    example_run,
    example_trajectory,
    example_verdict,
    test_ablations,
    test_balancing,
    test_merging,
    test_shadows_view,
)
from tests.test_gates import SAID, leaking
from tests.test_leaks import ADA, BOB, CLEO
from unlearn_core import cli, recorded
from unlearn_core.errors import InputError
from unlearn_core.store import Run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> | [x](http://x.test) ![y](http://y.test/y.png)"
BUILT = {"created": example_run.create, "trained": example_run.trained, "finished": example_run.finished}


class Page(HTMLParser):
    """Tags with their attributes, text, tables {caption: rows of cells, the head first}, and contents of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.tables, self.scripts, self.open = [], [], {}, [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)
        if tag == "table":
            self.caption, self.rows = "", []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, text):
        self.words.append(text)
        if "caption" in self.open:
            self.caption += text
        elif {"th", "td"} & set(self.open):
            self.rows[-1][-1] += text
        elif "script" in self.open:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + text)

    def table(self, caption):
        """The rows of the table whose caption begins so."""
        return next(rows for said, rows in self.tables.items() if said.startswith(caption))


@pytest.fixture(scope="module")
def run(smoke_run, tmp_path_factory):
    """A run of the engine with everything else measured that a report shows."""
    made = Run(shutil.copytree(smoke_run.path, tmp_path_factory.mktemp("runs") / smoke_run.id))
    example_trajectory.write(made)
    test_merging.write(made)
    made.write_ablations(test_ablations.SUBSET | {"rows": test_ablations.ROWS})
    test_balancing.store(made)
    example_verdict.probed(made, {"base": True, "untrained": False, "merged": False})
    test_shadows_view.write(made, 1.0)
    return made


@pytest.fixture(scope="module")
def untouched(run):
    """When each file of the run was changed before its report was made."""
    return {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}


@pytest.fixture(scope="module")
def made(run, untouched):
    return report.make(run)


@pytest.fixture(scope="module")
def text(made):
    return report.as_html(made)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def parts(found, kind):
    return [part for section in found.sections for part in section.parts if isinstance(part, kind)]


def plain(cell):
    """A cell of a Markdown table as its reader sees it."""
    return re.sub(r"\\([\\`<>\[\]|])", r"\1", cell)


# ---- numbers ---------------------------------------------------------------------------------------------------

def test_the_scores_in_the_page_are_those_that_overview_shows(run, page):
    scores = frames.score_table(run).set_index("label")
    head, *rows = page.table("Aggregate = mean of Task Aggregate")
    assert [row[0] for row in rows] == list(scores.index)
    names = {"Aggregate": "aggregate", "Task Aggregate": "task_aggregate", "MIA AUC": "mia_auc", "MMLU": "mmlu"}
    for row in rows:
        for label, key in names.items():
            value = scores.loc[row[0], key]
            assert row[head.index(label)] == ("not measured" if np.isnan(value) else f"{value:.3f}")


def test_every_table_that_is_written_holds_the_frame_of_its_page_unrounded(run, made):
    written = report_data.tables(made)
    found, space = signs.read(run), "dW"
    for name, frame in {
            "scores-scores": frames.score_table(run), "scores-sub_scores": frames.sub_scores(run),
            "trajectory-scores": trajectory.trajectory(run),
            "trajectory-path": trajectory.checkpoints(trajectory.trajectory(run)),
            "trajectory-brake": training.steps(run)[["model", *training.X_COLUMNS, "npo_brake"]],
            "merge-density": merging.of_kind(merging.table(run), "density"),
            "weights-where": weights.by_matrix(weights.read(run)),
            "conflicts-where": signs.matrices(found, space, found.about["excerpt_density"], "count"),
            "conflicts-density": signs.over_density(found, space, "count"),
            "metrics-twelve": official.table(run, official.of_run(run), {key: np.nan for key in official.CELLS}),
            "leaks-people_forget": leaks.summary(leaks.read(run), "forget")}.items():
        own = written[name]
        if name == "metrics-twelve":  # its chance levels are drawn from the run's own texts
            own = own.assign(chance=frame["chance"])
        pd.testing.assert_frame_equal(own.reset_index(drop=True), frame.reset_index(drop=True))


def test_json_and_csv_hold_the_same_numbers(made, tmp_path):
    report_data.write(made, tmp_path / "data")
    told = json.loads((tmp_path / "data" / "report.json").read_text(encoding="utf-8"))
    assert list(told["sections"]) == list(report.SECTIONS)
    rows = told["sections"]["scores"]["tables"]["scores"]["rows"]
    csv = pd.read_csv(tmp_path / "data" / "scores-scores.csv")
    assert [row["mia_auc"] for row in rows] == csv["mia_auc"].tolist()
    assert [row["model"] for row in rows] == csv["model"].tolist()
    tables = {f"{key}-{name}.csv" for key, section in told["sections"].items() for name in section["tables"]}
    assert {path.name for path in (tmp_path / "data").iterdir()} == tables | {"report.json"}
    assert len(parts(made, Chart)) > 30


def test_findings_are_those_of_the_run_in_the_summary_and_in_their_sections(run, made, page):
    found = findings.findings(run)
    told = report_data.as_json(made)["sections"]
    assert [(one["key"], one["text"], one["numbers"]) for one in told["summary"]["findings"]] == [
        (key, finding.text, finding.numbers) for key, finding in found.items()]
    placed = [one["key"] for key, section in told.items() if key != "summary" for one in section["findings"]]
    assert sorted(placed) == sorted(found)
    assert all(finding.text in " ".join(page.words) for finding in found.values())


def test_markdown_has_the_same_tables_and_sentences_as_the_page(made, page):
    text = report.as_markdown(made)
    for rows in page.tables.values():
        for row in rows:
            line = "| " + " | ".join(map(report_markdown.plain, row)) + " |"
            assert line in text
    for part in parts(made, Missing):
        assert part.command in plain(text).replace("    ", "")
    assert "<script" not in text


def test_numbers_are_written_as_on_the_pages():
    frame = pd.DataFrame({"a": [0.81249, np.nan, 0.0], "b": [3.0, np.nan, 40.0], "c": [0.04567, 1234.56, -0.5],
                          "d": [True, False, True], "e": [["x", "y"], [], None]})
    assert report_values.texts(frame).to_dict("list") == {
        "a": ["0.812", "not measured", "0.000"], "b": ["3", "not measured", "40"], "c": ["0.0457", "1235", "-0.500"],
        "d": ["yes", "no", "yes"], "e": ["x, y", "none", "not measured"]}


def test_a_long_table_is_thinned_evenly_and_says_so():
    frame = pd.DataFrame({"step": range(1000)})
    short, said = report_values.shortened(frame)
    assert (len(short), short["step"].iloc[0], short["step"].iloc[-1]) == (report_values.MOST_ROWS, 0, 999)
    assert set(short["step"].diff().dropna()) <= {16, 17}  # 999 / 59 is between these
    assert said.startswith("60 of 1000 rows")
    whole, said = report_values.shortened(frame.head(60))
    assert (len(whole), said) == (60, "")


def test_drawn_numbers_are_rounded_and_what_cannot_be_drawn_is_null(made):
    drawing = parts(made, Chart)[0].drawing
    json.dumps(drawing, allow_nan=False)
    values = [value for trace in drawing["data"] for value in trace.get("x") or [] if isinstance(value, float)]
    assert all(value == float(f"{value:.5g}") for value in values)


# ---- one file --------------------------------------------------------------------------------------------------

def test_nothing_is_fetched_from_elsewhere(text, page):
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "base", "form"}
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"@import|url\(", html.STYLE)
    policy = next(attributes["content"] for tag, attributes in page.tags
                  if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "connect-src" not in policy  # so it falls back to none


def test_only_the_two_scripts_that_the_page_names_by_their_hash_may_run(text, page):
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    running = [script for attributes, script in page.scripts if attributes.get("type") != "application/json"]
    assert len(running) == 2
    assert re.findall(r"'sha256-([^']+)'", policy) == [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in running]
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_each_chart_has_a_title_a_caption_words_for_who_cannot_see_it_and_its_table(made, page):
    charts = parts(made, Chart)
    drawn = [json.loads(script) for attributes, script in page.scripts if attributes.get("type") == "application/json"]
    assert drawn == [chart.drawing for chart in charts]
    plots = [attributes for _, attributes in page.tags if attributes.get("class") == "plot"]
    assert [plot["aria-label"] for plot in plots] == [chart.alt for chart in charts]
    assert [tag for tag, _ in page.tags].count("figcaption") == len(charts)
    for chart in charts:
        assert chart.title.endswith("?")
        assert f"Table behind: {chart.title}" in " ".join(page.words)


def test_a_report_is_small_beside_plotly(text):
    whole = len(text.encode())
    plotly = len(report.get_plotlyjs().encode())
    assert whole - plotly < 1.5e6
    assert whole < 8e6


def test_it_is_light_dark_and_has_a_style_for_paper(text):
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert '<body class="paged">' in text


@pytest.mark.skipif(b.chromium() is None, reason="no Chromium here")
def test_the_file_opens_from_disk_without_a_connection_and_draws_its_charts(run, tmp_path):
    path = tmp_path / "report.html"
    report.write(report.make(run, ["scores", "conflicts"]), path)
    with b.browser() as browser:
        context = browser.new_context(viewport={"width": 1000, "height": 800}, offline=True)
        page, errors, asked = context.new_page(), [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}")
        page.wait_for_function("() => [...document.querySelectorAll('.plot')].every(plot => plot.data)")
        assert b.problems(page) == []
        for scheme, ink in (("light", "rgb(29, 29, 31)"), ("dark", "rgb(236, 236, 238)"), ("light", "rgb(29, 29, 31)")):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function("ink => document.querySelector('.plot')._fullLayout.font.color === ink", arg=ink)
        offered = page.evaluate("() => [...document.querySelectorAll('.modebar-btn')].map(one => one.dataset.title)")
        assert "Zoom" in offered
        assert not {title for title in offered if "Share" in title or "cloud" in title.lower()}
        assert len(page.pdf(format="A4")) > 10_000
        assert errors == []
        page.evaluate("() => fetch('http://localhost:1/').catch(() => 0)")
        assert "Content Security Policy" in errors[0]  # what the page's policy forbids
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        context.close()


# ---- sections --------------------------------------------------------------------------------------------------

def test_sections_are_those_that_were_chosen_in_their_order(run):
    found = report.make(run, ["limits", "scores", "limits"], title="Mine")
    assert [section.key for section in found.sections] == ["limits", "scores"]
    text = report.as_html(found)
    ids = [attributes["id"] for tag, attributes in Page(text).tags if tag == "section"]
    assert ids == ["limits", "scores"]
    assert "<h1>Mine</h1>" in text
    assert re.findall(r"^## (.+)$", report.as_markdown(found), re.M) == ["Limits", "Scores"]


@pytest.mark.parametrize("sections", [["scores", "colours"], []])
def test_a_section_that_there_is_not_is_refused_with_those_that_there_are(run, sections):
    with pytest.raises(InputError, match="summary, scores, trajectory"):
        report.make(run, sections)


def test_the_definitions_have_every_score_with_direction_and_ideal(page):
    rows = {row[0]: row for row in page.table("The official scores.")}
    assert rows["MIA AUC"][2:] == ["neither end is good", "0.5"]
    assert rows["Forget knowledge, people with PII"][2:] == ["lower is better", "0"]
    assert rows["MMLU"][3] == "the base's"


def test_the_manifest_has_recipe_seed_versions_device_and_hashes(run, page):
    facts = {row[0]: row[1] for row in page.table("Run and model.")}
    info = run.info()
    assert facts["seed"] == str(run.recipe().seed)
    assert facts["device"] == info["device"]
    assert facts["version of torch"] == info["versions"]["torch"]
    hashes = {row[0]: row[1] for row in page.table("SHA-256.")}
    assert hashes["data: forget.jsonl"] == info["data_hashes"]["forget.jsonl"]
    assert hashes["adapter of merged"] == run.adapter_keys()["merged"]
    assert "npo_weight" in " ".join(page.words)  # the whole recipe


# ---- hostile and personal text ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def hostile(run, tmp_path_factory):
    """The run with a title, a command and names of merges that would do harm if they were read as more than text."""
    copied = Run(shutil.copytree(run.path, tmp_path_factory.mktemp("hostile") / run.id))
    copied.write_meta(title=HOSTILE)
    copied.note(command=[HOSTILE])
    rows = [row | {"name": HOSTILE} if row["kind"] == "density" else row for row in test_merging.ROWS]
    copied.write_merges(copied.merges() | {"rows": rows})
    return report.make(copied, ["merge", "manifest"])


def test_every_text_is_escaped_on_the_page(hostile):
    text = report.as_html(hostile)
    found = Page(text)
    assert not {"img", "iframe"} & {tag for tag, _ in found.tags}
    assert [dict(attributes).get("type") for tag, attributes in found.tags if tag == "script"].count(None) == 2
    assert HOSTILE in " ".join(found.words)
    assert text.count("<script>alert") == 0


def test_in_markdown_a_text_is_no_html_no_link_and_no_image(hostile):
    text = report.as_markdown(hostile)
    assert "\\</script\\>" in text
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(|!\[", text)
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")]
    assert min(widths) > 2  # a bar in a cell would be one more or less than in the head
    table = text[text.index("Table behind: Is the density"):].split("\n\n")[1].splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_a_markdown_cell_with_signs_is_read_back_as_it_was():
    assert plain(report_markdown.plain(HOSTILE)) == HOSTILE
    assert report_markdown.plain("a\n# b") == "a # b"


@pytest.fixture(scope="module")
def leak(tmp_path_factory):
    run = leaking(tmp_path_factory.mktemp("leaking"), SAID)
    run.write_meta(title="Request of Ada Blue, ada_blue@me.com")
    return run


def test_names_and_values_of_people_are_masked_in_every_form_unless_asked_for(leak):
    masked, named = report.make(leak), report.make(leak, ["summary", "evidence"], personal=True)
    told = [report.as_html(masked), report.as_markdown(masked), *report_data.files(masked).values()]
    for person in (ADA, BOB, CLEO):
        for value in (person.name, *person.values.values()):
            assert not [text for text in told if value in text]
    assert "Request of [name], [e-mail]" in told[0]
    assert "Names and values of people are masked." in told[0]
    assert "Ada Blue" in report.as_html(named)
    assert "keep it safe" in report.as_markdown(named)


# ---- runs that lack something ----------------------------------------------------------------------------------

@pytest.mark.parametrize("built", BUILT)
def test_a_run_that_lacks_results_says_so_in_each_section_with_a_command_that_works(tmp_path, built):
    run = BUILT[built](tmp_path)
    found = report.make(run)
    assert [section.key for section in found.sections] == list(report.SECTIONS)
    Page(report.as_html(found))
    missing = {section.key: [part for part in section.parts if isinstance(part, Missing)] for section in found.sections}
    assert not [part for own in missing.values() for part in own if part.what.startswith("Not readable")]
    lacking = {"merge", "weights", "conflicts", "robustness"}
    lacking |= {"scores", "metrics", "leaks"} if built in ("created", "trained") else set()
    assert lacking <= {key for key, own in missing.items() if own}
    commands = {line for own in missing.values() for part in own for line in part.command.splitlines()}
    told = [one for part in parts(found, report_parts.Findings) for one in part.found]
    todo = {line for one in told for line in one.todo.splitlines()}
    for line in commands | todo:
        assert line.startswith("python -m unlearn_core ")
        cli.parser().parse_args(shlex.split(line)[3:])


def test_a_brought_run_has_scores_and_says_that_nothing_was_trained(tmp_path):
    run = example_verdict.measured(tmp_path, {"base": ("forget", "retain"), "tested": ("retain",)})
    run.note(brought={name: {"model": f"/models/{name}", "adapter": ""} for name in ("base", "tested")})
    made = report.make(run, ["scores", "trajectory", "merge", "weights", "conflicts"])
    found = {section.key: section for section in made.sections}
    for key in ("trajectory", "merge", "weights", "conflicts"):
        part, = found[key].parts
        assert part.what.startswith("This run brought its models (Base, Tested): nothing was trained or merged here")
    assert [part.key for part in found["scores"].parts if isinstance(part, Table)] == ["scores"]
    assert "Tested" in report.as_html(made)
    robust, = report.make(run, ["robustness"]).sections
    assert [part.command for part in robust.parts if isinstance(part, Missing) and "shadow" in part.what] == [""]


def test_a_recorded_run_has_a_report(recorded_run):
    found = report.make(recorded_run, ["summary", "scores", "weights"])
    Page(report.as_html(found))
    assert not [part for part in parts(found, Missing) if part.what.startswith("Not readable")]


def test_a_recording_says_what_it_is_and_offers_no_command(smoke_run, tmp_path):
    made = recorded.record(smoke_run, tmp_path)
    found = report.make(made, ["summary", "merge", "evidence"])
    assert f"a run like it is made by: {made.recorded()['again']}" in report.as_html(found)
    assert parts(found, Missing)
    assert {part.command for part in parts(found, Missing)} == {""}
    assert {one.todo for part in parts(found, report_parts.Findings) for one in part.found} == {""}
    assert not parts(found, report_parts.Command)


def test_what_cannot_be_read_is_said_in_its_section_and_the_rest_is_written(run, tmp_path):
    copied = Run(shutil.copytree(run.path, tmp_path / run.id))
    copied.write_arrays("signs", {"A": np.zeros(3)}, {"schema": 1})
    found = {section.key: section for section in report.make(copied, ["conflicts", "limits"]).sections}
    assert found["conflicts"].parts[-1].what.startswith("Not readable: ")
    assert found["limits"].parts


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no recipe\.json"):
        report.make(Run(tmp_path / "nothing"))


def test_making_a_report_does_not_change_the_run(run, untouched, text):
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == untouched


# ---- the command -----------------------------------------------------------------------------------------------

def asked(run, *arguments):
    return report.main([run.id, "--runs-dir", str(run.path.parent), *map(str, arguments)])


def test_the_command_writes_the_file_and_the_data_and_says_where(run, tmp_path, capsys):
    out, data = tmp_path / "report.html", tmp_path / "data"
    assert asked(run, "--out", out, "--data", data, "--sections", "limits,scores", "--title", "Mine") == 0
    assert capsys.readouterr().out.splitlines() == [f"report: {out}", f"report: {data}"]
    assert [attributes["id"] for tag, attributes in Page(out.read_text(encoding="utf-8")).tags if tag == "section"] == [
        "limits", "scores"]
    assert json.loads((data / "report.json").read_text(encoding="utf-8"))["title"] == "Mine"
    assert asked(run, "--out", tmp_path / "report.md", "--format", "md", "--sections", "limits") == 0
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# ")


def test_bad_input_of_the_command_is_one_line_and_leaves_nothing(run, tmp_path, capsys):
    taken = tmp_path / "taken.html"
    taken.write_text("mine")
    for arguments in (["--out", taken], ["--out", tmp_path / "new.html", "--sections", "colours"],
                      ["--data", tmp_path]):
        assert asked(run, *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
    assert report.main(["nobody", "--runs-dir", str(tmp_path), "--out", str(tmp_path / "new.html")]) == 2
    assert taken.read_text() == "mine"
    assert not (tmp_path / "new.html").exists()
    with pytest.raises(SystemExit):
        asked(run)


def test_the_command_that_the_page_shows_is_taken(run, tmp_path):
    words = report.command(run.id, ["limits", "scores"], title="A 'title'", personal=True, form="md", data=True)
    options = report._parser().parse_args(words[3:])
    assert (options.sections, options.title, options.personal, options.format) == ("limits,scores", "A 'title'", True,
                                                                                  "md")
    assert (str(options.out), str(options.data)) == ("report.md", "report-data")
    assert report.command(run.id, list(report.SECTIONS)) == ["python", "-m", "analysis.report", run.id, "--out",
                                                             "report.html"]


def test_a_section_of_its_own_parts_is_written_in_both_forms():
    section = Section("own", "Own", (report_parts.Heading("Head"), report_parts.Note("A **bold** note."),
                                     report_parts.Command("Do it:", "ls"), report_parts.Code("Code", "a < b\n```")))
    page = html.section(section)
    assert "<h3>Head</h3>" in page
    assert "A <b>bold</b> note." in page
    assert "<pre>a &lt; b\n```</pre>" in page
    text = report_markdown.page("T", [], [section])
    assert "### Head" in text
    assert "Do it:\n\n    ls" in text
    assert "    a < b\n    ```" in text
