"""Whose personal data the answers give away, field by field, before and after, in one answer and in many."""

from pages import _frame, _leaking_parts, _leaking_sections

run = _frame.selected_run()
with _frame.bad_input_shown():
    found = _leaking_parts.read(run)
    if found is not None:
        _frame.part(_leaking_sections.show, run, found)
