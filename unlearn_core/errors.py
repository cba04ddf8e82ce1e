"""The one error type for bad input: it says what is wrong, what was found, what was expected and what to do."""


class InputError(Exception):
    """Something outside the program is wrong: a file, a setting, a model folder, a command line.

    `what` names the place (file and line, or setting); the other parts are optional. The message is one line,
    and what is not printable is escaped, so that the command line can print it as it is.
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


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
