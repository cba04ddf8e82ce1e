"""The report of the chosen run to take away: its sections and their order, a preview, and files."""

from pages import _frame, _report_made

run = _frame.selected_run()
_frame.part(_report_made.show, run)
