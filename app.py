"""The dashboard's frame: pages, run picker, state of the run. Start it with: streamlit run app.py"""

from pathlib import Path

import streamlit as st
from PIL import Image

from pages import _frame, _work

# An icon of our own, since Streamlit would fetch a page's symbol for the browser tab from a server of Google's.
ICON = Image.new("RGB", (32, 32), "#00674C")
SIDEBAR_WIDTH = 330  # pixels: room for a run's id
DARK_STYLE = Path(__file__).parent / ".streamlit" / "dark.css"

st.set_page_config(page_title="Lethe", page_icon=ICON, layout="wide",
                   # Of an embedded page Streamlit leaves out the header alone.
                   initial_sidebar_state="collapsed" if st.context.is_embedded else SIDEBAR_WIDTH)

page = st.navigation([
    st.Page("pages/overview.py", title="Overview", icon=":material/dashboard:", default=True,
            help="All runs, the scores of the chosen one, and whether its merge landed between its parents."),
    st.Page("pages/story.py", title="Story", icon=":material/auto_stories:",
            help="The chosen run in eight steps, each with one chart and one finding, to be shown to others."),
    st.Page("pages/data.py", title="Data", icon=":material/dataset:",
            help="What is to be forgotten and what must stay: counts, lengths, duplicates, records, your own files."),
    st.Page("pages/train.py", title="Train", icon=":material/model_training:",
            help="Start an unlearning run from a recipe, watch it live, stop it, go on with it."),
    st.Page("pages/sweeps.py", title="Sweeps", icon=":material/stacked_line_chart:",
            help="A recipe over settings and seeds: how far it is, what differs between configurations, by how much."),
    st.Page("pages/loss.py", title="Loss", icon=":material/show_chart:",
            help="Every loss component, NLL, brake and learning rate of both unlearning runs, step by step."),
    st.Page("pages/merge.py", title="Merge", icon=":material/merge:",
            help="Drag density and weights and see the merge at once; compare methods, densities and mixes by score."),
    st.Page("pages/weights.py", title="Weights", icon=":material/grid_on:",
            help="Where, in which directions and how concentrated each adapter changes the weights, matrix by matrix."),
    st.Page("pages/signs.py", title="Sign conflicts", icon=":material/call_split:",
            help="What a TIES merge does to every entry, where the two models pull in opposite directions, who wins."),
    st.Page("pages/metrics.py", title="Metrics", icon=":material/speed:",
            help="Every score with interval, chance and ideal; models and runs compared; what ROUGE and MIA miss."),
    st.Page("pages/leaks.py", title="Leaks", icon=":material/person_alert:",
            help="Whose personal data the answers give away, field by field, before and after unlearning."),
    st.Page("pages/robustness.py", title="Robustness", icon=":material/shield:",
            help="A verdict with its gates, attacks beside their controls, and what may bring back what is gone."),
    st.Page("pages/generations.py", title="Generations", icon=":material/forum:",
            help="What each model writes to the same prompt, with what leaked, what was lost and what is garbled."),
    st.Page("pages/report.py", title="Report", icon=":material/description:",
            help="Findings, charts and tables of the run in one file to take away, its sections chosen and ordered."),
    st.Page("pages/method.py", title="Method", icon=":material/menu_book:",
            help="The loss, NPO's brake, TIES and the scores, to try out; every word, score and setting defined."),
], position="sidebar", expanded=True)  # of so many pages Streamlit would hide the last ones

if st.context.theme.type == "dark":
    st.html(DARK_STYLE)
_frame.run_picker()
if not st.context.is_embedded:
    st.title(page.title)
_work.status_strip()
page.run()
