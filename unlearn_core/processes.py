"""Several processes that work on one run: what they must agree on, and how all of them end together."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from unlearn_core.errors import DeviceError, InputError

BAD_INPUT = 2  # exit code of the processes that end without a word, as that of the one that speaks
SAMPLED = 256  # entries of each parameter that tell two models apart
_PEER_LOST = re.compile(r"gloo/transport|Connection (closed|reset) by peer|remote process exited", re.IGNORECASE)

Found = TypeVar("Found")


def of_main(accelerator: Accelerator, work: Callable[[], Found]) -> Found:
    """What `work` gives in the main process, which alone does it, in all of them. If it fails, all of them end."""
    found: list = [None, None]
    if accelerator.is_main_process:
        try:
            found = [work(), None]
        except (InputError, OSError) as error:
            found = [None, error]
    value, error = broadcast_object_list(found)
    if error is not None:
        _end(accelerator, error)
    return value


def agree(accelerator: Accelerator, own: Callable[[], dict[str, str]]) -> None:
    """Every process says what it reads, as {name: value}; all of them end where one differs from the main one.

    The InputError is raised in the main process and names the other one, its machine and the first difference. Alone,
    a process is not asked.
    """
    if accelerator.num_processes == 1:
        return
    everyone = gather_object([(platform.node(), own())])
    main = everyone[0][1]
    for number, (machine, theirs) in enumerate(everyone):
        for name in main | theirs:
            if main.get(name) != theirs.get(name):
                _end(accelerator, InputError(
                    f"process {number} on {machine}: {name}", got=_short(theirs.get(name)),
                    expected=f"{_short(main.get(name))} as the main process has it on {everyone[0][0]}",
                    fix="give all processes the same files, packages and code, and one runs folder that all of them "
                        "see"))


def _short(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) <= 40 else f"{value[:12]}..."


def _end(accelerator: Accelerator, error: Exception) -> None:
    """The main process tells, and the others end without a word."""
    if accelerator.is_main_process:
        raise error
    raise SystemExit(BAD_INPUT)


def fingerprint(model, tokenizer) -> dict[str, str]:
    """For `agree`: a hash over some entries of each weight, and one over the vocabulary."""
    weights, words = hashlib.sha256(), hashlib.sha256()
    for name, parameter in model.named_parameters():
        weights.update(name.encode() + parameter.detach().flatten()[:SAMPLED].float().cpu().numpy().tobytes())
    for word, number in sorted(tokenizer.get_vocab().items()):
        words.update(f"{word} {number}\n".encode())
    return {"weights of the model": weights.hexdigest(), "vocabulary of the model": words.hexdigest()}


@contextmanager
def waited_for(accelerator: Accelerator, again: str) -> Iterator[None]:
    """Around work in which the processes wait for one another: a DeviceError where one of them has ended.

    `again`: what goes on with the work.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not _PEER_LOST.search(str(error)):
            raise
        raise DeviceError("another process of this run has ended", expected=f"all {accelerator.num_processes} of them",
                          fix=f"see what it said, or whether it was killed; what was done is kept; {again}") from error
