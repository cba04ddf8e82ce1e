"""From what was typed to a sweep: values of settings, named variants and seeds, checked before anything starts.
Torch-free."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.settings import MAX_SEED
from unlearn_core.store import MAX_STEM
from unlearn_core.sweep.sweeps import Configuration, Sweep

MOST = 200  # runs that are planned without being asked twice
LONGEST_NAME = 60  # characters of a variant
_NOT_VARIED = {"seed": "name the seeds with --seeds", "name": "name configurations with --variant",
               "description": "name configurations with --variant"}


def plan(recipe: str, settings: Sequence[str] = (), variants: Sequence[Sequence[str]] = (), seeds: Sequence[int] = (),
         *, name: str = "", many: bool = False) -> Sweep:
    """The sweep of a recipe over a grid and named variants; every recipe of it is read and checked here.

    `settings`: "key=a,b,c" for several values, "key=a" for a fixed one; a comma inside brackets or quotes parts
    nothing. `variants`: a name, then the settings that it changes. `many`: more than `MOST` runs are meant.
    """
    seeds, values, named = seeds or (recipes.load(recipe).seed,), _values(settings), _variants(variants)
    fixed = [f"{key}={own[0]}" for key, own in values.items() if len(own) == 1]
    grid = {key: own for key, own in values.items() if len(own) > 1}
    _refuse_clashes(grid, named)
    count = math.prod(map(len, grid.values())) * len(named) * len(seeds)
    if count > MOST and not many:
        raise InputError("sweep", got=f"{count} runs", expected=f"at most {MOST}", fix="--yes if you mean all of them")
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    configurations = []
    for (variant, changes), point in itertools.product(named.items(), points):
        typed = [f"{key}={value}" for key, value in point.items()]
        made = recipes.load(recipe, [*fixed, *changes, *typed, "seed=0"])
        configurations.append(Configuration(", ".join(filter(None, [variant, *typed])) or made.name, point, made))
    _refuse_doubles(configurations)
    ending = "-".join([*grid, *(["variants"] if variants else [])]) or "seeds"
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{configurations[0].recipe.name}-{ending}")[:MAX_STEM].strip("-.")
    return Sweep(name or stem, recipe, tuple(seeds), tuple(configurations))


def seeds_of(text: str) -> tuple[int, ...]:
    """"0-2,7" -> 0, 1, 2, 7."""
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        if not first <= last <= MAX_SEED or last - first > 10 * MOST:
            raise InputError("--seeds", got=text, expected=f"such as 0-4 or 0,3,7; from 0 to {MAX_SEED}")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise InputError("--seeds", got=text, expected="each seed once")
    return tuple(found)


def _values(settings: Sequence[str]) -> dict[str, list[str]]:
    """{setting: its values} of "key=a,b,c" strings."""
    found: dict[str, list[str]] = {}
    for setting in settings:
        key, text = _parted(setting, "--set")
        if key in found:
            raise InputError("--set", got=f"{key} twice", expected=f"its values together, as {key}=a,b")
        found[key] = _split(text)
        if "" in found[key]:
            raise InputError("--set", got=setting, expected="a value before and after each comma",
                             fix=f'{key}="" for an empty text')
    return found


def _variants(variants: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """{name: changed settings}; one without a name and a change where there are none."""
    found: dict[str, list[str]] = {}
    for name, *changes in variants:
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable() or set(name) & set("=|,"):
            raise InputError("--variant", got=name, expected=f"first a name: at most {LONGEST_NAME} characters without "
                                                             "=, | and comma")
        if name in found:
            raise InputError("--variant", got=f"{name} twice", expected="a name of its own for each")
        for change in changes:
            _parted(change, f"--variant {name}")
        found[name] = changes
    return found or {"": []}


def _parted(setting: str, where: str) -> tuple[str, str]:
    """(key, text of the value) of "key=value"; not every setting can be a sweep's."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(where, got=setting, expected="table.key=value, for example merge.density=0.6")
    if key in _NOT_VARIED:
        raise InputError(where, got=setting, expected="another setting", fix=_NOT_VARIED[key])
    return key, text


def _split(text: str) -> list[str]:
    """The parts between commas that stand neither in brackets nor in quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        else:
            depth += (sign == "[") - (sign == "]")
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _refuse_clashes(grid: dict[str, list[str]], variants: dict[str, list[str]]) -> None:
    """A setting of the grid would silently replace that of a variant."""
    for name, changes in variants.items():
        for change in changes:
            key = change.partition("=")[0].strip()
            if key in grid:
                raise InputError(f"--variant {name}", got=change, expected="a setting that --set does not vary")


def _refuse_doubles(configurations: Sequence[Configuration]) -> None:
    for first, second in itertools.combinations(configurations, 2):
        if first.recipe == second.recipe:
            raise InputError("sweep", got=f"the same recipe twice, as {first.name!r} and {second.name!r}",
                             expected="configurations that differ")
