"""Whose personal data the answers give away, field by field, before and after, in one answer and in many."""

from pages import _leaking_parts, _leaking_sections, _widgets

run = _widgets.selected_run()
with _widgets.bad_input_shown():
    found = _leaking_parts.read(run)
    if found is not None:
        _widgets.part(_leaking_sections.show, run, found)
