"""The people of Task 2: their names and personal values, and where such a value stands in a text in any form."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from unlearn_core.data.items import Item
from unlearn_core.vocabulary import QA

PERSONS_TASK = "Task2"
# Field -> label, in the order of LUME's questions: a document's item qa0 asks for the first, qa4 for the last.
FIELDS = {"birth_date": "birth date", "ssn": "Social Security number", "phone": "phone number",
          "email": "e-mail address", "address": "home address"}
NAME = "name"
MASKS = {NAME: "[name]", "birth_date": "[birth date]", "ssn": "[SSN]", "phone": "[phone]", "email": "[e-mail]",
         "address": "[address]"}

# What a question asks for, by its words; "e-mail address" must be looked for before "address".
_ASKS = {"birth_date": r"birth|born", "ssn": r"social security|\bssn\b", "phone": r"phone",
         "email": r"e-?mail", "address": r"address|live|reside"}
_NAMED = tuple(re.compile(pattern) for pattern in (
    r"What is the [\w -]+? of (.+?)\?", r"What is (.+?)['\u2019]s? [\w -]+\?", r"(.+?) was born\b"))
# Mail addresses and numbers of a person who has no questions of their own.
_SHAPES = {"email": re.compile(r"[\w.+\\-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"),
           "ssn": re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"),
           "phone": re.compile(r"(?<![\d-])\(?\d{3}\)?[-. ]\d{3}[-.]\d{4}(?![\d-])")}
# Words of an address that are written in two ways.
_SHORTENED = dict(pair.split() for pair in (
    "street st", "avenue ave", "road rd", "drive dr", "lane ln", "boulevard blvd", "court ct", "place pl",
    "circle cir", "parkway pkwy", "highway hwy", "terrace ter", "trail trl", "turnpike tpke", "square sq", "plaza plz",
    "freeway fwy", "expressway expy", "crossing xing", "heights hts", "mount mt", "apartment apt", "suite ste",
    "north n", "south s", "east e", "west w",
    "northeast ne", "northwest nw", "southeast se", "southwest sw"))
_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
           "november", "december")
_ISO_DATE = re.compile(r"(\d{4})-(0?[1-9]|1[0-2])-(\d{1,2})")
_SIGN_DIGITS = 4  # of a number that a text must show in a row

Span = tuple[int, int]
Value = tuple[str, str]  # whose (a document id) and which field, or NAME


def label(field: str) -> str:
    """What a reader sees of a field: that of `FIELDS`, or the name that the data gave it."""
    return FIELDS.get(field, field)


def cover(field: str) -> str:
    """What masking writes in place of a field's value, or of a name."""
    return MASKS.get(field, f"[{field}]")


def ordered(fields: Iterable[str]) -> list[str]:
    """These fields, each once: those of `FIELDS` in their order, then others as they come."""
    found = dict.fromkeys(fields)
    return [*(key for key in FIELDS if key in found), *(key for key in found if key not in FIELDS)]


@dataclass(frozen=True)
class Person:
    """One person: the document that tells of them, and {field: value} as their questions answer it."""

    document: str
    name: str  # "" where no text of theirs says it in a known form
    values: dict[str, str] = field(default_factory=dict)


def persons(items: Iterable[Item]) -> dict[str, Person]:
    """{document id: person} of the Task 2 items, in their order."""
    names: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    for item in items:
        if item.task == PERSONS_TASK:
            asked = field_of(item)
            known = values.setdefault(item.document, {})
            if asked:
                known.setdefault(asked, item.answer.strip())
            names[item.document] = names.get(item.document) or item.person or _name(item.prompt)
    return {document: Person(document, names[document], known) for document, known in values.items()}


def field_of(item: Item) -> str | None:
    """The field that a question about a person asks for: as the data say, else, where they name no person either, by
    its words, else by its number; None for other items."""
    if item.field or item.person:
        return item.field or None
    if item.task != PERSONS_TASK or item.kind != QA:
        return None
    asked = next((key for key, words in _ASKS.items() if re.search(words, item.prompt, re.IGNORECASE)), None)
    return asked or dict(zip("01234", FIELDS, strict=True)).get(item.id[-1])


def _name(prompt: str) -> str:
    found = next((match for pattern in _NAMED if (match := pattern.match(prompt[:300]))), None)
    return found[1].strip() if found else ""


# ---- where a value stands ------------------------------------------------------------------------------------

def occurrences(text: str, field: str, value: str) -> list[Span]:
    """(start, end) of each place where a field's value stands in a text, in whatever form.

    Numbers: the same digits with any separators, and not a longer number; dates: ISO, long, short, day or month
    first; mail: any case, with Markdown's escapes; addresses: house number and street, and what follows of the rest.
    """
    pattern = _pattern(field, value)
    return [match.span() for match in pattern.finditer(text)] if pattern else []


def leaks(text: str, person: Person, prompt: str = "") -> set[str]:
    """Fields of a person whose value the text gives away: it stands there, or begins in the prompt and ends there.

    A field whose value the prompt already holds cannot leak: repeating it is an echo.
    """
    return {key for key, value in person.values.items()
            if not occurrences(prompt, key, value) and occurrences(f"{prompt} {text}", key, value)}


def carries(item: Item, values: Sequence[tuple[str, str]], shapes: bool = False) -> bool:
    """Whether an item's whole text holds one of these (field, value); with `shapes`, any mail address or number of
    that form counts, as a text may spell its person's value wrongly."""
    text = item.text
    if shapes and any(key in _SHAPES and _SHAPES[key].search(text) for key, _ in values):
        return True
    signs = _signs(text)  # there are thousands of values, so a look for a sign goes before each pattern
    return any(_sign(key, value) in signs and occurrences(text, key, value) for key, value in values)


class Finder:
    """Whose values and full names stand in a text, for many people at once; finds what `occurrences` finds for each."""

    def __init__(self, people: Mapping[str, Person]):
        self._by_sign: dict[object, list[tuple[Value, str]]] = defaultdict(list)
        for document, person in people.items():
            # One word is no full name: it may be anybody's.
            names = {NAME: person.name} if len(_words(person.name).split()) > 1 else {}
            for key, value in (person.values | names).items():
                self._by_sign[_sign(key, value)].append(((document, key), value))

    def found(self, text: str, but: frozenset[Value] = frozenset()) -> frozenset[Value]:
        """(document, field or "name") of each value and name in the text, in whatever form; those in `but` are not
        looked for."""
        return frozenset(whose for sign in self._by_sign.keys() & _signs(text) for whose, value in self._by_sign[sign]
                         if whose not in but and occurrences(text, whose[1], value))


@lru_cache(maxsize=20_000)
def _sign(field: str, value: str) -> object:
    """What a text must show if it holds a value in any form: its first word, four digits of a number in a row, or for
    a date (last two digits of the year, day)."""
    date, digits = _ISO_DATE.fullmatch(value.strip()), _digits(value)
    if field == "birth_date" and date:
        return int(date[1]) % 100, int(date[3])
    if field in ("ssn", "phone") and len(digits) >= _SIGN_DIGITS:
        return digits[-_SIGN_DIGITS:]
    return _words(value).split(" ")[0]


def _signs(text: str) -> set[object]:
    """All that a text shows of what `_sign` asks for."""
    numbers = re.findall(r"\d+", text)
    digits, numbers = "".join(numbers), set(numbers)
    numbers |= {part for number in numbers if len(number) == 8 for part in (number[2:4], number[6:])}  # 19841231
    days = {int(number) for number in numbers if len(number) <= 2}
    years = {int(number[-2:]) for number in numbers if len(number) in (2, 4)}
    return {digits[at:at + _SIGN_DIGITS] for at in range(len(digits) - _SIGN_DIGITS + 1)} | set(
        re.findall(r"[^\W_]+", text.lower())) | {(year, day) for year in years for day in days}


@lru_cache(maxsize=20_000)  # a pattern is made once for each value of a data set
def _pattern(field: str, value: str) -> re.Pattern | None:
    """What finds a value in all its forms; None for a value without a letter or digit."""
    forms = {"birth_date": _date_forms, "ssn": _number_forms, "phone": _phone_forms, "email": _mail_forms,
             "address": _address_forms}
    regex = forms.get(field, _word_forms)(value) or _word_forms(value)
    return re.compile(regex, re.IGNORECASE) if regex else None


def _number_forms(value: str, before: str = "") -> str:
    """The digits with up to three other signs between two of them, and no digit next to them."""
    digits = re.findall(r"\d", value)
    spread = r"[\W_]{0,3}".join(digits)
    return rf"(?<!\d){before}\(?{spread}(?!\d)" if len(digits) > 3 else ""


def _phone_forms(value: str) -> str:
    """The digits as of a number; before ten of them may stand a country code, as in +17216253765."""
    return _number_forms(value, r"(?:\+?1[\W_]{0,3})?" if len(_digits(value)) == 10 else "")


def _date_forms(value: str) -> str:
    """An ISO date as 1984-12-31, 19841231, 12/31/1984, 31.12.84, December 31st, 1984, 31 Dec '84, 31/Dec/1984 ..."""
    parts = _ISO_DATE.fullmatch(value.strip())
    if not parts:
        return ""
    year, month, day = parts[1], int(parts[2]), int(parts[3])
    short, name = rf"(?:{year}|['\u2019]?{year[2:]})", _MONTHS[month - 1]
    word = rf"(?:{name}|{'sept?' if name == 'september' else name[:3]})\.?"
    month_number, day_number, between = f"0?{month}", f"0?{day}", r"\s?[-/.]\s?"
    day_word, comma = rf"{day_number}(?:st|nd|rd|th)?", r"[\s,./-]+"
    return (r"(?<!\d)(?:" + "|".join((
        f"{year}{between}{month_number}{between}{day_number}",
        f"{year}{month:02d}{day:02d}",
        f"{month_number}{between}{day_number}{between}{short}",
        f"{day_number}{between}{month_number}{between}{short}",
        rf"{word}[\s,/-]*(?:the\s+)?{day_word}{comma}(?:in\s+)?{short}",
        rf"{day_word}[\s/-]*(?:day\s+)?(?:of\s+)?{word}{comma}(?:in\s+)?{short}",
        rf"{year}{comma}{word}[\s/-]*{day_word}")) + r")(?!\d)")


def _mail_forms(value: str) -> str:
    """The address in any case; Markdown may escape each of its signs, a link may write @ as %40, a careful writer
    spells [at] and [dot]."""
    local, at, domain = value.strip().partition("@")
    if not at:
        return ""
    dots = r"(?:\\?\.|\s?[\[(]dot[\])]\s?)".join(map(_escaped, domain.split(".")))
    return rf"(?<![\w+-])(?<!\w\.){_escaped(local)}\s?(?:\\?@|%40|[\[(]at[\])]|\bat\b)\s?{dots}(?![\w-])"


def _escaped(text: str) -> str:
    """A text whose signs may each have a backslash before them."""
    return "".join(sign if sign.isalnum() else rf"\\?{re.escape(sign)}" for sign in text)


def _address_forms(value: str) -> str:
    """The street line up to the first comma, then words of the rest in any order, with at most two others between.

    A text may leave out the town, say "Apt. #4" for "#4", or name the state in full.
    """
    street, _, rest = value.partition(",")
    if not re.match(r"\W*\d", street) or len(_words(street).split()) < 2:
        return ""
    tail = "|".join(sorted(map(_spelled, set(_words(rest).split())))) or r"\b\B"
    words = r"[\W_]+".join(map(_spelled, _words(street).split()))
    return rf"(?<!\w){words}(?!\w)(?:(?:[\W_]+[^\W_]+){{0,2}}?[\W_]+(?:{tail})(?!\w))*"


def _spelled(word: str) -> str:
    """A word of an address in both of its spellings."""
    long = next((long for long, short in _SHORTENED.items() if short == word), word)
    return f"(?:{long}|{_SHORTENED[long]})" if long in _SHORTENED else word


def _word_forms(value: str) -> str:
    """The words and numbers in their order, with anything but letters and digits between them."""
    words = r"[\W_]+".join(_words(value).split())
    return rf"(?<!\w){words}(?!\w)" if words else ""


# ---- masking -------------------------------------------------------------------------------------------------

def mask(text: str, persons: Mapping[str, Person]) -> str:
    """The text without these people's names and values; mail addresses and numbers of that shape go, too.

    A first name alone goes where the text names the person in full or holds one of their values.
    """
    return _masked(text, hidden(text, persons.values()), 0, len(text))


def mask_items(items: Sequence[Item], persons: Mapping[str, Person]) -> list[tuple[str, str]]:
    """(prompt, answer) of each item, masked as one text, since a value may begin in the prompt and end in the answer.

    Of the other people than an item's own, those are masked to whom a surname or a number in the text points.
    """
    pointers = defaultdict(set)
    for document, person in persons.items():
        numbers = [_digits(person.values.get(key, "")) for key in ("ssn", "phone")]
        for word in (*_words(person.name).split()[-1:], *numbers, *(number[-4:] for number in numbers)):
            pointers[word].add(document)
    masked = []
    for item in items:
        text, cut = item.text, len(item.prompt)
        meant = {item.document}.union(*(pointers.get(word, ()) for word in set(_words(text).split())))
        found = hidden(text, [persons[document] for document in meant if document in persons])
        masked.append((_masked(text, found, 0, cut), _masked(text, found, cut + 1, len(text))))
    return masked


def hidden(text: str, people: Iterable[Person]) -> list[tuple[int, int, str]]:
    """(start, end, field or "name") of what masking hides, in order and without overlaps; the longer one wins."""
    found = [(*match.span(), key) for key, shape in _SHAPES.items() for match in shape.finditer(text)]
    for person in people:
        found += _own_spans(text, person)
    kept: list[tuple[int, int, str]] = []
    for start, end, key in sorted(found, key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= low or start >= high for low, high, _ in kept):
            kept.append((start, end, key))
    return sorted(kept)


def _own_spans(text: str, person: Person) -> list[tuple[int, int, str]]:
    found = [(*span, key) for key, value in person.values.items() for span in occurrences(text, key, value)]
    found += [(*span, NAME) for span in occurrences(text, NAME, person.name)]
    if found and person.name:
        found += [(*span, NAME) for span in occurrences(text, NAME, person.name.split()[0])]
    return found


def _masked(text: str, found: list[tuple[int, int, str]], low: int, high: int) -> str:
    """`text[low:high]` with what is found there replaced by its mask."""
    parts, place = [], low
    for start, end, key in found:
        if end > low and start < high:
            parts += [text[place:max(start, low)], cover(key)]
            place = min(end, high)
    return "".join(parts) + text[place:high]


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)
