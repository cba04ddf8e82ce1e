"""How a command of the analysis ends: bad input and a full disk are told in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

from unlearn_core.errors import InputError


def exit_code(action: Callable[[], None]) -> int:
    """Do it; 0 done, 1 failed, 2 bad input."""
    try:
        action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without permission
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
