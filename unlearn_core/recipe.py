"""Recipes: the settings of a run, read from TOML, checked once, here, and written again. Torch-free."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from unlearn_core.errors import InputError
from unlearn_core.settings import Recipe
from unlearn_core.vocabulary import UNLEARNED

RECIPES = Path(__file__).parent / "recipes"


def load(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by name (of `unlearn_core/recipes`) or by path to a TOML or `recipe.json` file.

    `overrides` are `table.key=value` strings with TOML values (bare words are taken as text). The table
    `[unlearn]` of a TOML file gives both model_1 and model_2 their common settings.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path = RECIPES / f"{name_or_path}.toml"
        if not path.is_file():
            known = sorted(p.stem for p in RECIPES.glob("*.toml"))
            raise InputError("recipe", got=name_or_path, expected=f"one of {', '.join(known)} or a path to a TOML file",
                             fix=_did_you_mean(name_or_path, known))
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"recipe {path}", got=error.strerror or str(error), expected="a readable TOML file") from None
    return loads(text, str(path), overrides)


def loads(text: bytes, name: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """`load` for the content of a file; `name` is that of the file, JSON where it ends with .json, else TOML."""
    kind = "JSON" if name.endswith(".json") else "TOML"
    try:
        raw = json.loads(text.decode("utf-8")) if kind == "JSON" else tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"recipe {name}", got="bytes that are not UTF-8", expected=f"a {kind} file") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"recipe {name}", got=str(error), expected=f"valid {kind}") from None
    if not isinstance(raw, dict):
        raise InputError(f"recipe {name}", got=raw, expected="tables of settings")
    for override in overrides:
        _apply_override(raw, override)
    return parse(raw, where=Path(name).name)


def parse(raw: dict, where: str = "recipe") -> Recipe:
    """Check a nested dict and freeze it; unknown keys, wrong types and values out of range are InputErrors."""
    raw = dict(raw)
    common = raw.pop("unlearn", {})
    for name in UNLEARNED:
        own = raw.get(name, {})
        for table, value in (("unlearn", common), (name, own)):
            if not isinstance(value, dict):
                raise InputError(f"{where}: {table}", got=value, expected="a table")
        raw[name] = {**common, **own}
    recipe = _build(Recipe, raw, where, "")
    for place, got, expected, fix in _contradictions(recipe):
        raise InputError(f"{where}: {place}", got=got, expected=expected, fix=fix)
    return recipe


def settings(kind: type = Recipe, prefix: str = "") -> list[tuple[str, Field, type]]:
    """(dotted name, dataclass field with its metadata, type) of every setting, in the order of the recipe."""
    found, hints = [], get_type_hints(kind)
    for f in fields(kind):
        hint = hints[f.name]
        found += (settings(hint, f"{prefix}{f.name}.") if is_dataclass(hint) else [(prefix + f.name, f, hint)])
    return found


def field_errors(raw: dict) -> dict[str, str]:
    """{dotted name: what is wrong there, "got ...; expected ..."} of every wrong setting of what `as_dict` gives.

    Where each one alone is right, the rules between settings follow, under the name of the setting or table that
    they are about, and what has the wrong shape as a whole under "". {} means that `parse` takes it.
    """
    known, flat = {name: (f, hint) for name, f, hint in settings()}, _flatten(raw)
    errors = {}
    for name, value in flat.items():
        try:
            if name not in known:
                raise InputError(name, got="a setting that there is not", fix=_did_you_mean(name, list(known)))
            field_, hint = known[name]
            _check(value, hint, field_.metadata, name)
        except InputError as error:
            errors[name] = str(error).removeprefix(f"{name}; ")
    if errors:
        return errors
    try:
        recipe = _build(Recipe, raw, "recipe", "")
    except InputError as error:
        return {"": str(error)}
    for place, got, expected, fix in _contradictions(recipe):
        errors.setdefault(place, str(InputError(place, got=got, expected=expected, fix=fix)).removeprefix(f"{place}; "))
    return errors


def nested(flat: dict[str, Any]) -> dict:
    """{dotted name: value} as nested tables, the way `parse` takes them."""
    raw: dict = {}
    for name, value in flat.items():
        *tables, last = name.split(".")
        place = raw
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = value
    return raw


def as_dict(recipe: Recipe) -> dict:
    """The recipe as nested plain dicts, the content of `recipe.json`."""
    return dataclasses.asdict(recipe)


def flat(recipe: Recipe) -> dict[str, Any]:
    """{dotted name: value} of every setting, the reverse of `nested`."""
    return _flatten(as_dict(recipe))


def changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with `table.key=value` strings applied, as `load` takes them."""
    raw = as_dict(recipe)
    for override in overrides:
        _apply_override(raw, override)
    return parse(raw)


def as_toml(recipe: Recipe) -> str:
    """The recipe as a TOML file, every setting written out, with its explanation; `load` gives the same recipe."""
    lines, table = [], ""
    values = flat(recipe)
    for name, f, _ in settings():
        own, _, key = name.rpartition(".")
        if own != table:
            lines += ["", f"[{own}]"]
            table = own
        lines.append(f"{key} = {toml_value(values[name])}  # {f.metadata['help']}")
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A setting's value as TOML, on one line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for U+007F, which JSON lets stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def as_overrides(start: Recipe, recipe: Recipe) -> list[str]:
    """The `table.key=value` strings with which `load` makes one recipe of another."""
    return [f"{name}={toml_value(value)}" for name, _, value in differing(start, recipe)]


def differing(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any]]:
    """(dotted name, value in first, value in second) for each field in which two recipes differ."""
    left, right = flat(first), flat(second)
    return [(key, left[key], right[key]) for key in left if left[key] != right[key]]


def _flatten(tables: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tables.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _apply_override(raw: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError("--set", got=override, expected="table.key=value, for example --set model_1.lr=2e-4")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *tables, last = key.strip().split(".")
    # Both unlearning tables may be set at once through `unlearn`, which must then win over the file's own values.
    targets = [tables] if tables != ["unlearn"] else [["model_1"], ["model_2"]]
    for target in targets:
        place = raw
        for table in target:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise InputError("--set", got=override, expected=f"a table, but {table} is a value")
        place[last] = value


def _build(kind: type, raw: Any, where: str, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise InputError(f"{where}: {prefix.rstrip('.')}", got=raw, expected="a table")
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in raw:
        if key not in known:
            raise InputError(f"{where}: unknown setting {prefix}{key}", expected=f"one of {', '.join(known)}",
                             fix=_did_you_mean(key, known))
    values = {}
    for f in fields(kind):
        if f.name not in raw:
            continue
        place = f"{where}: {prefix}{f.name}"
        if is_dataclass(hints[f.name]):
            values[f.name] = _build(hints[f.name], raw[f.name], where, f"{prefix}{f.name}.")
        else:
            values[f.name] = _check(raw[f.name], hints[f.name], f.metadata, place)
    return kind(**values)


def _check(value: Any, hint: Any, limits: Any, place: str) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(place, got=value, expected=f"a list of {get_args(hint)[0].__name__}")
        return tuple(_check(v, get_args(hint)[0], limits, place) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        words = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
        raise InputError(place, got=value, expected=words[hint])
    if hint is float and not math.isfinite(value):
        raise InputError(place, got=value, expected="a finite number")
    if hint is str and not _encodable(value):
        raise InputError(place, got=ascii(value), expected="text without half surrogate pairs")
    choices, low, high, above = (limits.get(k) for k in ("choices", "minimum", "maximum", "above"))
    if choices and value not in choices:
        raise InputError(place, got=value, expected=f"one of {', '.join(map(str, choices))}",
                         fix=_did_you_mean(str(value), [str(c) for c in choices]))
    if ((low is not None and value < low) or (high is not None and value > high)
            or (above is not None and value <= above)):
        raise InputError(place, got=value, expected=bounds(limits))
    return value


def bounds(limits: Any) -> str:
    """The limits of a setting (its field's metadata) in words, such as "above 0 and at most 1"; "" without any."""
    words = (("at least", limits.get("minimum")), ("above", limits.get("above")), ("at most", limits.get("maximum")))
    return " and ".join(f"{word} {bound:.10g}" for word, bound in words if bound is not None)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _contradictions(recipe: Recipe) -> Iterator[tuple[str, Any, str, str]]:
    """(setting or table, got, expected, fix) of each rule between settings that is broken."""
    base, data, evaluation = recipe.base, recipe.data, recipe.evaluation
    if base.source == "scratch" and base.hidden_size % (2 * base.heads):  # rotary positions pair a head's entries
        yield ("base.hidden_size", base.hidden_size, f"a multiple of 2 * base.heads ({2 * base.heads})", "")
    if base.source != "scratch" and not base.model:
        yield ("base.model", "nothing", "a folder or hub id", "for example --set base.model=/path/to/model")
    if data.source == "files" and not (data.path or (data.forget and data.retain)):
        yield ("data", "no files", "data.path, or data.forget and data.retain",
               "for example --set data.path=/path/to/lume")
    if evaluation.mia_members == "files" and not (data.mia or data.path):
        yield ("evaluation.mia_members", "files, but data.mia and data.path are empty",
               "a folder with member.jsonl and nonmember.jsonl", "")
    weights = list(recipe.merge.weights)
    if len(weights) != 2:
        yield "merge.weights", weights, "two numbers", ""
    if not any(weights):
        yield "merge.weights", weights, "at least one that is not 0", ""
    if recipe.merge.rank and recipe.merge.level == "factors" and recipe.merge.method != "cat":
        yield ("merge.rank", recipe.merge.rank, "0 where factors are merged", 'a rank is for merge.level = "delta"')
    for name in UNLEARNED:
        u = getattr(recipe, name)
        if not any(u.weights.values()):
            yield name, "all loss weights are 0", "at least one above 0", ""
        if u.chunk and u.epochs != int(u.epochs):
            yield f"{name}.epochs", u.epochs, "a whole number with chunk", ""
        if u.packed and u.klr_positions == "padded":
            yield f"{name}.packed", True, "false where KLR reads padding", 'set klr_positions = "real"'
        if not u.scale:
            yield f"{name}.scale", u.scale, "another number than 0", ""
        if u.warmup_epochs > u.epochs:
            yield f"{name}.warmup_epochs", u.warmup_epochs, f"at most epochs ({u.epochs:g})", ""


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else ""
