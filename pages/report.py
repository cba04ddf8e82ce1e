"""The report of the chosen run to take away: its sections and their order, a preview, and files."""

from pages import _report_made, _widgets

run = _widgets.selected_run()
_widgets.part(_report_made.show, run)
