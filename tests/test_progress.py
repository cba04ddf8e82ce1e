"""Time left and time spans in words."""

from datetime import UTC, datetime, timedelta

import pytest

from analysis import progress

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def status(step, total, since_step=0, ago=10.0):
    return {"step": step, "total": total, "since": (NOW - timedelta(seconds=ago)).isoformat(), "since_step": since_step}


def test_ten_steps_in_ten_seconds_leave_thirty_for_thirty_more():
    assert progress.remaining_seconds(status(10, 40), NOW) == pytest.approx(30)


def test_steps_of_an_earlier_process_do_not_make_a_resumed_training_look_fast():
    # resumed at 100; 10 steps in 10 s, 40 to go: 40 s, not 10 / 110 * 40 = 3.6 s
    assert progress.remaining_seconds(status(110, 150, since_step=100), NOW) == pytest.approx(40)


@pytest.mark.parametrize("unknown", [status(1, 40), status(0, 0), {"step": 5, "total": 9}, status(101, 150, 100)])
def test_what_cannot_be_known_yet_is_none(unknown):
    assert progress.remaining_seconds(unknown, NOW) is None


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"),
                                                (3599.6, "1 h 0 min"), (3780, "1 h 3 min")])
def test_a_time_span_in_words(seconds, words):
    assert progress.duration(seconds) == words


def test_the_time_since_a_moment():
    assert progress.seconds_since((NOW - timedelta(minutes=2)).isoformat(), NOW) == 120
    assert progress.seconds_since(None) is None
