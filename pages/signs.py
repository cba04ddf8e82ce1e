"""What a TIES merge of model_1 and model_2 does to every entry, where the two pull in opposite directions, who wins."""

from pages import _signs_parts, _signs_view, _widgets

run = _widgets.trained_run("are no two adapters to compare")
with _widgets.bad_input_shown():
    measured = _signs_parts.measured(run)
    if measured is not None:
        _widgets.part(_signs_view.show, run, measured)
_signs_parts.explain()
