"""What a TIES merge of model_1 and model_2 does to every entry, where the two pull in opposite directions, who wins."""

from pages import _frame, _signs_parts, _signs_view

run = _frame.trained_run("are no two adapters to compare")
with _frame.bad_input_shown():
    measured = _signs_parts.measured(run)
    if measured is not None:
        _frame.part(_signs_view.show, run, measured)
_signs_parts.explain()
