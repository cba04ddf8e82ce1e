"""The two errors whose message is meant for a person: bad input, and a device that is full or gone."""


class _OneLine(Exception):
    """A message in one line: what is wrong, what was found, what was expected and what to do.

    `what` names the place (file and line, setting, or stage); the other parts are optional. What is not printable is
    escaped, so that the command line can print it as it is.
    """

    def __init__(self, what: str, *, got: object = None, expected: str = "", fix: str = ""):
        parts = [what]
        if got is not None:
            shown = got if isinstance(got, str) else repr(got)
            parts.append(f"got {shown if len(shown) <= 120 else shown[:117] + '...'}")
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(fix)
        super().__init__(_printable("; ".join(" ".join(part.split()) for part in parts)))


class InputError(_OneLine):
    """Something outside the program is wrong: a file, a setting, a model folder, a command line."""


class DeviceError(_OneLine):
    """The input is right, but a device ran out of memory or stopped working; what was done until then is kept."""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
