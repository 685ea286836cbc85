r"""Read an answer's structure: lists, tuples, intervals, relations, quantities, times, words.

What has no structure of its own is a `Leaf`, a formula that `formulas` hands to latex2sympy. No
part of the text is dropped: what fits no rule stays in a leaf, where the parser refuses it.
"""

import re
from functools import lru_cache

from reasoning_lab.verify.latex_form import latex_form
from reasoning_lab.verify.nodes import (
    EMPTY,
    Based,
    Clock,
    Congruence,
    Group,
    Leaf,
    Listing,
    Node,
    Quantity,
    Ratio,
    Relation,
    SetExpression,
    Words,
)
from reasoning_lab.verify.phrases import compound, usual_brackets, without_integers
from reasoning_lab.verify.units import KNOWN_SHORT, SCALES, unit_words

_MARK = re.compile(r"\\begin\s?\{[a-z]+\}|\\end\s?\{[a-z]+\}|\\[{}]|\\[A-Za-z]+|\\.|[()\[\]{}]|.")
_OPENING = ("(", "[", "{", "\\{")
_CLOSING = (")", "]", "}", "\\}")
_RELATION = re.compile(
    r"\\(?:le|ge|neq|in|notin|ni|approx|equiv|sim|cong|propto|to|subset|subseteq|supset|supseteq"
    r"|parallel|perp|Rightarrow|implies|iff|Leftrightarrow|mapsto)(?![A-Za-z])|:=|[=<>]"
)
_SEPARATOR = re.compile(r",|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|&")
_SET_OPERATOR = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])")
_RESPELT = [
    (re.compile(r"\\not\s*(?:=|\\equiv(?![A-Za-z]))"), "\\\\neq "),
    (re.compile(r"\\not\s*\\in(?![A-Za-z])"), "\\\\notin "),
    (re.compile(r"(?<!\\)!=|/=|<>"), "\\\\neq "),
    (re.compile(r"<=|=<"), "\\\\le "),
    (re.compile(r">="), "\\\\ge "),
    (re.compile(r"(?<![<\\])~="), "\\\\approx "),
    (re.compile(r"(\\mathbb ?\{[A-Z]\})\s*-\s*(?=\\\{)"), r"\1 \\setminus "),
]
_THOUSANDS = re.compile(
    r"(?<![0-9,.])(?<![(\[])(?<!\\\{)(?<![0-9]\s)[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])"
)
_ANNOUNCED = re.compile(
    r"^(?:\\text\{)?(?:(?:the )?(?:final |correct )?answer is|(?:final )?answer)\s*(?::\s*|\s|\})+",
    re.I,
)
_APPROXIMATELY = re.compile(
    r"^(?:\\text\{)?(?:about|approximately|approx\.?|around|roughly|nearly|circa)\}?\s*"
    r"(?=[-\\$0-9.])|^\\approx ",
    re.I,
)
_FOR_ALL = re.compile(
    r",?\s*(?:\\text\{\s*)?for (?:all|any|every)(?: real)?(?: numbers?| values? of)?\s*\}?\s*"
    r"(?:\\text\{)?(?P<name>[a-z]?)\}?\s*(?:\\in \\mathbb ?\{R\}|\\text\{in reals\})?$"
    r"|,?\s*\\forall [a-z] ?\\in ?\\mathbb ?\{R\}$"
)
_CLOCK = re.compile(
    r"(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-5][0-9]))?\s*(?:\\text\{)?\s*"
    r"(?P<half>[ap])\.? ?m\.?\s*\}?",
    re.I,
)
_MAYBE_CLOCK = re.compile(r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9])")
_MODULUS = re.compile(
    r"^(?P<value>.*?)\s*(?:\\p?mod\s*(?P<a>\{.*\}|[0-9]+|[a-z])"
    r"|\(\s*(?:\\mod|\\bmod|\\text\{mod\}|mod)\s*(?P<b>[^()]*)\))$"
)
_BASES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_IN_BASE = re.compile(
    r"\(?(?:\\text\{)?(?P<digits>(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]+)\}?\)?\s*_\s*\{?\s*(?:\\text\s*\{)?\s*"
    rf"(?P<base>[0-9]+|{'|'.join(_BASES)})\s*\}}?\}}?"
)
_CURRENCY = re.compile(
    r"^(?P<sign>[-+]?)\s*(?P<currency>(?:US)?\\?\$|[€£¥₹₩₽₱]|(?:USD|EUR|GBP) )\s*(?P<rest>[-+]?.*)$"
)
_TAIL = re.compile(
    r"(?P<gap>\s*)(?P<token>\\text\{(?P<words>[^{}]*)\}(?:\^\{[23]\})?"
    r"|(?<![A-Za-z\\])(?P<run>[A-Za-z]+)(?:\^\{[23]\})?\.?|°\s?[CF]?|\\?%|/|[€£¥₹¢]|\\\$)\s*$"
)
_UNIT_TEXT = re.compile(r"[A-Za-z .'/\-%^23]*")
_NUMBER = re.compile(
    r"[-+]?\s*(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)|[-+]?\\frac\{-?[0-9]+\}\{[0-9]+\}"
)
_SHORT_UNIT = "(?:m|s|g|h|L|l|N|J|km|kg|cm|mm|ft|mi|yd|in|lb|min|hr|sec|mol)(?:\\^\\{[23]\\})?"
_BARE_UNIT = re.compile(
    rf"(?P<value>[-+]?[0-9.,]+|.*\}})\s+(?P<unit>{_SHORT_UNIT}\s*/\s*{_SHORT_UNIT}"
    rf"|(?:sq|cu|square|cubic)\.? {_SHORT_UNIT})"
)
_LONE_UNITS = frozenset("msghLNJ")
_VARIABLES = re.compile(r"[a-df-hj-np-tv-z]{2,3}|[A-Za-z]")
_LETTERS = re.compile(r"[^\W\d_]+")
_PROSE = re.compile(r"[A-Za-z .'\-:!?()/]+")
_ARTICLES = frozenset({"a", "an", "the"})
_SAME_WORDS = {
    "no solutions": "no solution", "there is no solution": "no solution",
    "there are no solutions": "no solution", "empty set": "\\emptyset",
    "all real numbers": "reals", "all reals": "reals", "real numbers": "reals",
    "does not exist": "dne", "do not exist": "dne", "diverges to infinity": "\\infty",
}  # fmt: skip
_MAX_PARTS = 200
_MAX_DEPTH = 24


def read(text: str, *, gold: bool = False) -> Node:
    """Return the structure of an answer, or of gold; a text without any is one leaf."""
    return _read_whole(text, gold)


@lru_cache(maxsize=512)
def _read_whole(text: str, gold: bool) -> Node:
    form = latex_form(text)
    for pattern, spelling in _RESPELT:
        form = pattern.sub(spelling, form)
    form = usual_brackets(_ANNOUNCED.sub("", form, count=1))
    return _read(form, gold, 0)


def _read(text: str, gold: bool, depth: int) -> Node:
    text = _stripped(text)
    without = _FOR_ALL.sub("", text)
    text = without_integers(without if without.strip() else text)
    if depth > _MAX_DEPTH or not text:
        return Leaf(text)
    text = _without_thousands(text)
    parts = compound(text)
    if parts is not None:
        return Words(parts)
    for reader in (_listing, _relation, _set_expression, _bracketed, _both_signs, _small):
        node = reader(text, gold, depth + 1)
        if node is not None:
            return node
    return _leaf(text)


def _stripped(text: str) -> str:
    """Without spaces, a final stop, and braces around the whole."""
    text = text.strip()
    if text.endswith((".", ",", ";")) and not text.endswith(("...", "..")):
        text = text[:-1].rstrip()
    text = text.rstrip("\\ ")
    while text.startswith("{") and text.endswith("}") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens the text is closed by its last character alone."""
    depth = 0
    for mark in _MARK.finditer(text):
        depth += (mark[0] in _OPENING) - (mark[0] in _CLOSING)
        if depth == 0:
            return mark.end() == len(text)
    return False


def split_top(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split outside all brackets and environments: the parts, and what stood between them."""
    parts: list[str] = []
    between: list[str] = []
    depth = start = at = 0
    while at < len(text):
        match = separator.match(text, at) if depth == 0 else None
        if match and len(between) < _MAX_PARTS:
            parts.append(text[start : match.start()])
            between.append(match[0])
            start = at = match.end()
            continue
        mark = _MARK.match(text, at)
        token = mark[0] if mark else text[at]
        opens = token in _OPENING or token.startswith("\\begin")
        closes = token in _CLOSING or token.startswith("\\end")
        depth = max(0, depth + opens - closes)
        at += len(token)
    return [*parts, text[start:]], between


def _without_thousands(text: str) -> str:
    """Without the commas of 1,234 where every comma of the text is one of those, or has a space."""
    if "," not in text:
        return text
    rest = _THOUSANDS.sub("0", text)
    if rest == text or re.search(r",(?=\S)", rest):
        return text
    return _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)


def _listing(text: str, gold: bool, depth: int) -> Node | None:
    parts, between = split_top(text, re.compile(";"))
    if not between:
        parts, between = split_top(text, _SEPARATOR)
    filled = [part for part in parts if part.strip(" &")]
    if not between or not filled or (len(filled) < len(parts) and _has_hole(parts, between)):
        return None
    if len(filled) == 1 and between:
        return None
    items: list[Node] = []
    for part in filled:
        item = _read(part, gold, depth)
        items += item.items if isinstance(item, Listing) and ";" not in between else [item]
    joint = {separator for separator in between if separator.isalpha()}
    return Listing(tuple(items), joint.pop() if len(joint) == 1 and "," not in between else "")


def _has_hole(parts: list[str], between: list[str]) -> bool:
    """Whether an item is missing: only `, and` may have nothing between its two marks."""
    for place, part in enumerate(parts):
        if not part.strip() and not (0 < place < len(between) and between[place] in ("and", "or")):
            return True
    return False


def _relation(text: str, gold: bool, depth: int) -> Node | None:
    about = _APPROXIMATELY.match(text)
    if about:
        return _read(text[about.end() :], gold, depth)
    sides, operators = split_top(text, _RELATION)
    if not operators:
        return None
    nodes = tuple(_read(side, gold, depth) if side.strip() else None for side in sides)
    names = tuple(" ".join(side.split()) for side in sides)
    return Relation(tuple("=" if o == ":=" else o for o in operators), nodes, names)


def _set_expression(text: str, gold: bool, depth: int) -> Node | None:
    parts, operators = split_top(text, _SET_OPERATOR)
    if not operators or len(set(operators)) > 1 or not all(part.strip() for part in parts):
        return None
    if operators[0] == "\\setminus" and len(parts) > 2:
        return None
    return SetExpression(operators[0], tuple(_read(part, gold, depth) for part in parts))


def _bracketed(text: str, gold: bool, depth: int) -> Node | None:
    if text in ("\\emptyset", "\\{\\}", "\\{ \\}"):
        return EMPTY
    opening = next((mark for mark in ("\\{", "(", "[") if text.startswith(mark)), None)
    closing = next((mark for mark in ("\\}", ")", "]") if text.endswith(mark)), None)
    if opening is None or closing is None or not _closes_at_end(text):
        return None
    brackets = opening[-1] + closing[-1]
    inner = text[len(opening) : -len(closing)]
    if brackets == "{}":
        builder, bars = split_top(inner, re.compile(r"\||(?<![A-Za-z0-9}]):"))
        if len(bars) == 1 and builder[0].strip():
            condition = _read(builder[1], gold, depth)
            return condition if isinstance(condition, Relation) else None
    parts, _ = split_top(inner, re.compile(r"[,;]"))
    if len(parts) == 1 and (brackets == "()" or inner.strip().startswith("\\begin")):
        return _read(inner, gold, depth)
    if brackets not in ("{}", "()", "[]", "(]", "[)"):
        return None
    if not all(part.strip() for part in parts):
        return None
    items: list[Node] = []
    for part in parts:
        item = _read(part, gold, depth)
        spread = isinstance(item, Listing) and brackets == "{}"
        items += item.items if spread and isinstance(item, Listing) else [item]
    return Group(brackets, tuple(items))


def _both_signs(text: str, gold: bool, depth: int) -> Node | None:
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None
    plus = re.sub(r"\\mp(?![A-Za-z])", "-", re.sub(r"\\pm(?![A-Za-z])", "+", text))
    minus = re.sub(r"\\mp(?![A-Za-z])", "+", re.sub(r"\\pm(?![A-Za-z])", "-", text))
    return Listing((_read(plus, gold, depth), _read(minus, gold, depth)))


def _small(text: str, gold: bool, depth: int) -> Node | None:
    """Times, ratios, numbers in a base, congruences, words and quantities."""
    clock = _CLOCK.fullmatch(text)
    if clock and 1 <= int(clock["hour"]) <= 12:
        return Clock(int(clock["hour"]), int(clock["minute"] or 0), clock["half"].lower() + "m")
    if ":" in text:
        parts, colons = split_top(text, re.compile(":"))
        if colons and all(part.strip() for part in parts):
            read_parts = tuple(_read(part, gold, depth) for part in parts)
            return Ratio(read_parts, bool(_MAYBE_CLOCK.fullmatch(text)))
    based = _IN_BASE.fullmatch(text)
    if based:
        named = based["base"]
        base = 2 + _BASES.index(named) if named in _BASES else int(named[:9])
        return Based(based["digits"].upper().lstrip("0"), base)
    congruence = _MODULUS.match(text)
    if congruence and congruence["value"]:
        modulus = congruence["a"] or congruence["b"]
        return Congruence(_read(congruence["value"], gold, depth), _read(modulus, gold, depth))
    words = _words(text)
    return words if words is not None else _quantity(text, gold, depth)


def _words(text: str) -> Words | None:
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip()
    bare = bare[:-1] if re.search(r"[A-Za-z]{3}!$", bare) else bare
    if not _PROSE.fullmatch(bare.strip()):
        return None
    runs = _LETTERS.findall(bare)
    if not runs or (len(runs) == 1 and _VARIABLES.fullmatch(runs[0])):
        return None
    if not any(len(run) > 1 for run in runs) or re.search(r"[A-Za-z]\([A-Za-z]\)|/", bare):
        return None
    return _folded(bare)


def _folded(text: str) -> Words:
    words = re.findall(r"[^\W_]+(?:\.[0-9]+)?|[-+*/^=<>_\\|%$!]", text.casefold().replace("'", ""))
    words = [word for word in words if word != "-"]
    if len(words) > 1:
        words = [word for word in words if word not in _ARTICLES] or words
    joined = " ".join(words)
    return Words(_SAME_WORDS.get(joined, joined))


def _quantity(text: str, gold: bool, depth: int) -> Node | None:
    currency = _CURRENCY.match(text)
    named: list[str] = []
    if currency and currency["rest"].strip():
        sign = currency["currency"].replace("\\", "").strip()
        named = unit_words("$" if sign.endswith("$") else sign) or []
        text = currency["sign"] + currency["rest"]
    value, unit = _without_unit(text, gold)
    words = unit_words(unit) if unit else []
    if words is None or not value.strip() or not (words or named):
        return None
    factor = 1
    while words and words[0] in SCALES:
        factor *= SCALES[words.pop(0)]
    if named and words[: len(named)] != named:
        words = named + words
    if factor > 1:
        value = f"({value})\\cdot {factor}"
    inner = _read(value, gold, depth)
    if isinstance(inner, Words | Listing | Relation | Quantity):
        return None
    return Quantity(inner, tuple(words)) if words else inner


def _without_unit(text: str, gold: bool) -> tuple[str, str]:
    """The value and its unit, which is empty where none follows."""
    bare = _BARE_UNIT.fullmatch(text)
    if bare:
        return bare["value"], bare["unit"].replace("{", "").replace("}", "").replace(" /", "/")
    unit = ""
    while True:
        tail = _TAIL.search(text)
        if tail is None or tail.start() == 0 or not _is_unit(tail, text, gold, bool(unit)):
            break
        words = tail["words"]
        token = tail["token"].replace("\\text", "").replace("{", "").replace("}", "")
        if words is not None and "°" not in token:
            token = f" {token} "
        unit = f"{token.replace(chr(92), '')} {unit}".replace("$", " $ ")
        text = text[: tail.start()].rstrip()
    unit = re.sub(r"\s*/\s*", "/", unit)
    return ("", "") if unit.startswith("/") and not unit[1:].strip() else (text, unit)


def _is_unit(tail: re.Match[str], text: str, gold: bool, more: bool) -> bool:
    """Whether a word at the end is a unit's, and no variable or prose."""
    before = text[: tail.start()]
    if tail["words"] is not None:
        return bool(_UNIT_TEXT.fullmatch(tail["words"])) and unit_words(tail["words"]) is not None
    run = tail["run"]
    if run is None and "°" in tail["token"]:
        return not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", before)
    if run is None:
        return tail["token"] != "/" or more
    if re.fullmatch(KNOWN_SHORT, run):
        return True
    if before.endswith("/"):
        return bool(re.search(r"\\text\{[^{}]*\}(?:\^\{[23]\})?\s*/$|\$|[A-Za-z]{2,}\s*/$", before))
    if len(run) == 1 and not gold and tail["gap"] and run in _LONE_UNITS:
        return bool(_NUMBER.fullmatch(before.strip()))
    if len(run) < 3 or _VARIABLES.fullmatch(run) or not (tail["gap"] or before.endswith("°")):
        return run == "per" and bool(tail["gap"])
    return unit_words(run) is not None


def _leaf(text: str) -> Node:
    """A formula, or prose where a run of letters can be no product of variables."""
    runs = re.findall(
        r"(?<![A-Za-z\\])[A-Za-z]{3,}", re.sub(r"\\(?:begin|end)\s?\{[a-z]+\}", "", text)
    )
    wordy = [run for run in runs if not _VARIABLES.fullmatch(run) and list(run) != sorted(run)]
    wordy += re.findall(r"\\text\{[^{}]*[A-Za-z]{2,}[^{}]*\}", text)
    if wordy and not re.search(r"\\(?:frac|sqrt|begin|int|sum|cdot|overline|bar|vec|mathbb)", text):
        return _folded(re.sub(r"\\text", " ", text))
    return Leaf(text)
