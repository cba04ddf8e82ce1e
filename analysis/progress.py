"""How far a run is and how long it still takes, from its status alone."""

from __future__ import annotations

from datetime import UTC, datetime


def remaining_seconds(status: dict, now: datetime | None = None) -> float | None:
    """Seconds until the last step of the present stage, at the pace since its steps began to be counted.

    `status` is `Run.status`. None where nothing is counted, or less than two steps are done.
    """
    done = status["step"] - (status.get("since_step") or 0)
    if not status.get("since") or not status["total"] or done < 2:
        return None
    now = now or datetime.now(UTC)
    spent = (now - datetime.fromisoformat(status["since"])).total_seconds()
    return max(0.0, spent / done * (status["total"] - status["step"]))


def seconds_since(moment: str | None, now: datetime | None = None) -> float | None:
    """Seconds since a time of the store, None where there is none."""
    if moment is None:
        return None
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()


def duration(seconds: float) -> str:
    """A time span in words: 7 s, 2 min 5 s, 1 h 3 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
