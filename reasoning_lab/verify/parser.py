r"""Parse an answer into a tree: lists, tuples, intervals, relations, quantities, times, words.

Text without such structure becomes a `Formula`, which `formulas` parses with latex2sympy. No text
is dropped: text that fits no rule stays in a formula, and latex2sympy refuses it.
"""

import re
from functools import lru_cache

from reasoning_lab.verify import parse_tree as tree
from reasoning_lab.verify.latex_normalisation import normalise_latex
from reasoning_lab.verify.parse_tree import Formula, Node, PlainList, Words
from reasoning_lab.verify.units import SCALES, normalise_compound_quantity, parse_unit, split_unit

_TOKEN = re.compile(r"\\begin\s?\{[a-z]+\}|\\end\s?\{[a-z]+\}|\\[{}]|\\[A-Za-z]+|\\.|[()\[\]{}]|.")
_OPENING = ("(", "[", "{", "\\{")
_CLOSING = (")", "]", "}", "\\}")
_RELATION = re.compile(
    r"\\(?:le|ge|neq|in|notin|ni|approx|equiv|sim|cong|propto|to|subset|subseteq|supset|supseteq"
    r"|parallel|perp|Rightarrow|implies|iff|Leftrightarrow|mapsto)(?![A-Za-z])|:=|[=<>]"
)
_SEPARATOR = re.compile(r",|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|&")
_SET_OPERATOR = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])")
_OPERATOR_SPELLINGS = [
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
_ANNOUNCEMENT = re.compile(
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
_INTEGER_CONDITION = re.compile(
    r",?\s*\(?\s*(?:\\text\{,?\s*(?:for|where|with)\s*(?:all|any|some|every)?\s*\}|for|where)?\s*"
    r"(?P<name>[a-z])\s*(?:\\in\s*\\mathbb\s?\{Z\}|\\text\{\s*is an(?:y)? integer\s*\})\s*\)?$"
    r"|,?\s*\\text\{,?\s*(?:for|where)\s*(?:all |any |some |every |an )?integers?(?: \}|\})?\s*"
    r"(?P<index>[a-z])\}?$"
)
_REVERSED_BRACKETS = re.compile(r"\s*([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])\s*")
_TIME = re.compile(
    r"(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-5][0-9]))?\s*(?:\\text\{)?\s*"
    r"(?P<half>[ap])\.? ?m\.?\s*\}?",
    re.I,
)
_POSSIBLE_TIME = re.compile(r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9])")
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
_VARIABLES = re.compile(r"[a-df-hj-np-tv-z]{2,3}|[A-Za-z]")
_LETTERS = re.compile(r"[^\W\d_]+")
_PROSE = re.compile(r"[A-Za-z .'\-:!?()/]+")
_ARTICLES = frozenset({"a", "an", "the"})
_SYNONYMS = {
    "no solutions": "no solution", "there is no solution": "no solution",
    "there are no solutions": "no solution", "empty set": "\\emptyset",
    "all real numbers": "reals", "all reals": "reals", "real numbers": "reals",
    "does not exist": "dne", "do not exist": "dne", "diverges to infinity": "\\infty",
}  # fmt: skip
_MAX_PARTS = 200
_MAX_DEPTH = 24


@lru_cache(maxsize=512)
def parse_answer(text: str, *, gold: bool = False) -> Node:
    """Parse an answer, or a gold, where a lone letter behind a number is no unit."""
    latex = normalise_latex(text)
    for pattern, operator in _OPERATOR_SPELLINGS:
        latex = pattern.sub(operator, latex)
    latex = _normalise_reversed_brackets(_ANNOUNCEMENT.sub("", latex, count=1))
    return _parse(latex, gold, 0)


def _parse(text: str, gold: bool, depth: int) -> Node:
    text = _strip(text)
    unquantified = _FOR_ALL.sub("", text)
    text = _drop_integer_condition(unquantified if unquantified.strip() else text)
    if depth > _MAX_DEPTH or not text:
        return Formula(text)
    text = _drop_thousands_separators(text)
    compound_quantity = normalise_compound_quantity(text)
    if compound_quantity is not None:
        return Words(compound_quantity)
    for parse_kind in (
        _parse_list,
        _parse_relation,
        _parse_set_expression,
        _parse_bracketed,
        _parse_both_signs,
        _parse_single_value,
    ):
        node = parse_kind(text, gold, depth + 1)
        if node is not None:
            return node
    return _formula_or_words(text)


def _normalise_reversed_brackets(text: str) -> str:
    """Write `]0,1[` as `(0,1)` and `[0,1[` as `[0,1)`, also in unions and behind `\\in`."""
    if "]" not in text and "[" not in text:
        return text
    head, membership, sets = text.rpartition("\\in ")
    parts = re.split(r"(\\cup)", sets)
    if not all(_REVERSED_BRACKETS.fullmatch(p) or re.fullmatch(r"[^\[\]]*", p) for p in parts):
        return text
    return head + membership + "".join(_REVERSED_BRACKETS.sub(_round_brackets, p) for p in parts)


def _round_brackets(match: re.Match[str]) -> str:
    return f"{'[' if match[1] == '[' else '('}{match[2]}{']' if match[3] == ']' else ')'}"


def _drop_integer_condition(text: str) -> str:
    """Drop `k \\in \\mathbb{Z}` behind a formula in `k` that does not state values of `k`."""
    match = _INTEGER_CONDITION.search(text)
    if match is None:
        return text
    formula, name = text[: match.start()].rstrip(" ,"), match["name"] or match["index"]
    values = rf"{name}\s*=|[^=]*(?:[<>]|\\(?:le|ge|neq|in|equiv)(?![A-Za-z]))"
    is_used = re.search(rf"(?<![A-Za-z\\]){name}(?![A-Za-z])", formula)
    return formula if is_used and not re.match(values, formula) else text


def _strip(text: str) -> str:
    """Drop outer spaces, a final stop and braces around the whole."""
    text = text.strip()
    if text.endswith((".", ",", ";")) and not text.endswith(("...", "..")):
        text = text[:-1].rstrip()
    text = text.rstrip("\\ ")
    while text.startswith("{") and text.endswith("}") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def _closes_at_end(text: str) -> bool:
    """Return whether the text's last character closes the bracket that opens the text."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        if depth == 0:
            return token.end() == len(text)
    return False


def split_top_level(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split outside all brackets and environments; return the parts and the separators."""
    parts: list[str] = []
    separators: list[str] = []
    depth = start = at = 0
    while at < len(text):
        match = separator.match(text, at) if depth == 0 else None
        if match and len(separators) < _MAX_PARTS:
            parts.append(text[start : match.start()])
            separators.append(match[0])
            start = at = match.end()
            continue
        match = _TOKEN.match(text, at)
        token = match[0] if match else text[at]
        opens = token in _OPENING or token.startswith("\\begin")
        closes = token in _CLOSING or token.startswith("\\end")
        depth = max(0, depth + opens - closes)
        at += len(token)
    return [*parts, text[start:]], separators


def _drop_thousands_separators(text: str) -> str:
    """Drop the commas of 1,234 unless a comma of the text separates something else."""
    if "," not in text:
        return text
    rest = _THOUSANDS.sub("0", text)
    if rest == text or re.search(r",(?=\S)", rest):
        return text
    return _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)


def _parse_list(text: str, gold: bool, depth: int) -> Node | None:
    parts, separators = split_top_level(text, re.compile(";"))
    if not separators:
        parts, separators = split_top_level(text, _SEPARATOR)
    filled = [part for part in parts if part.strip(" &")]
    if not separators or len(filled) < 2:
        return None
    if len(filled) < len(parts) and _misses_item(parts, separators):
        return None
    items = _parse_items(filled, gold, depth, flat=";" not in separators)
    conjunctions = {separator for separator in separators if separator.isalpha()}
    is_single = len(conjunctions) == 1 and "," not in separators
    return PlainList(items, conjunctions.pop() if is_single else "")


def _parse_items(parts: list[str], gold: bool, depth: int, flat: bool) -> tuple[Node, ...]:
    """Parse the items of a list; `flat` = the items of a list inside it are its own."""
    items: list[Node] = []
    for part in parts:
        item = _parse(part, gold, depth)
        items += item.items if isinstance(item, PlainList) and flat else [item]
    return tuple(items)


def _misses_item(parts: list[str], separators: list[str]) -> bool:
    """Return whether an item is missing; only `, and` has none between."""
    followers = ["", *separators[1:], ""]
    return any(
        not part.strip() and follower not in ("and", "or")
        for part, follower in zip(parts, followers, strict=True)
    )


def _parse_relation(text: str, gold: bool, depth: int) -> Node | None:
    approximately = _APPROXIMATELY.match(text)
    if approximately:
        return _parse(text[approximately.end() :], gold, depth)
    sides, operators = split_top_level(text, _RELATION)
    if not operators:
        return None
    nodes = tuple(_parse(side, gold, depth) if side.strip() else None for side in sides)
    texts = tuple(" ".join(side.split()) for side in sides)
    return tree.Relation(tuple("=" if o == ":=" else o for o in operators), nodes, texts)


def _parse_set_expression(text: str, gold: bool, depth: int) -> Node | None:
    parts, operators = split_top_level(text, _SET_OPERATOR)
    if not operators or len(set(operators)) > 1 or not all(part.strip() for part in parts):
        return None
    if operators[0] == "\\setminus" and len(parts) > 2:
        return None
    return tree.SetExpression(operators[0], tuple(_parse(part, gold, depth) for part in parts))


def _parse_bracketed(text: str, gold: bool, depth: int) -> Node | None:
    if text in ("\\emptyset", "\\{\\}", "\\{ \\}"):
        return tree.EMPTY_SET
    opening = next((b for b in ("\\{", "(", "[") if text.startswith(b)), None)
    closing = next((b for b in ("\\}", ")", "]") if text.endswith(b)), None)
    if opening is None or closing is None or not _closes_at_end(text):
        return None
    brackets = opening[-1] + closing[-1]
    inner = text[len(opening) : -len(closing)]
    if brackets == "{}":
        builder, bars = split_top_level(inner, re.compile(r"\||(?<![A-Za-z0-9}]):"))
        if len(bars) == 1 and builder[0].strip():
            condition = _parse(builder[1], gold, depth)
            return condition if isinstance(condition, tree.Relation) else None
    parts, _ = split_top_level(inner, re.compile(r"[,;]"))
    if len(parts) == 1 and (brackets == "()" or inner.strip().startswith("\\begin")):
        return _parse(inner, gold, depth)
    if brackets not in ("{}", "()", "[]", "(]", "[)") or not all(map(str.strip, parts)):
        return None
    return tree.Bracketed(brackets, _parse_items(parts, gold, depth, flat=brackets == "{}"))


def _parse_both_signs(text: str, gold: bool, depth: int) -> Node | None:
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None
    texts = [
        re.sub(r"\\mp(?![A-Za-z])", lower, re.sub(r"\\pm(?![A-Za-z])", upper, text))
        for upper, lower in (("+", "-"), ("-", "+"))
    ]
    return PlainList(_parse_items(texts, gold, depth, flat=False))


def _parse_single_value(text: str, gold: bool, depth: int) -> Node | None:
    """Parse a time, ratio, number in a base, congruence, words or a quantity."""
    time = _TIME.fullmatch(text)
    if time and 1 <= int(time["hour"]) <= 12:
        am_pm = time["half"].lower() + "m"
        return tree.TimeOfDay(int(time["hour"]), int(time["minute"] or 0), am_pm)
    if ":" in text:
        parts, colons = split_top_level(text, re.compile(":"))
        if colons and all(part.strip() for part in parts):
            nodes = tuple(_parse(part, gold, depth) for part in parts)
            return tree.Ratio(nodes, bool(_POSSIBLE_TIME.fullmatch(text)))
    based = _IN_BASE.fullmatch(text)
    if based:
        base_text = based["base"]
        base = 2 + _BASES.index(base_text) if base_text in _BASES else int(base_text[:9])
        return tree.BasedNumber(based["digits"].upper().lstrip("0"), base)
    congruence = _MODULUS.match(text)
    if congruence and congruence["value"]:
        modulus = congruence["a"] or congruence["b"]
        return tree.Congruence(
            _parse(congruence["value"], gold, depth), _parse(modulus, gold, depth)
        )
    words = _parse_words(text)
    return words if words is not None else _parse_quantity(text, gold, depth)


def _parse_words(text: str) -> Words | None:
    prose = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip()
    prose = prose[:-1] if re.search(r"[A-Za-z]{3}!$", prose) else prose
    if not _PROSE.fullmatch(prose.strip()):
        return None
    runs = _LETTERS.findall(prose)
    if not runs or (len(runs) == 1 and _VARIABLES.fullmatch(runs[0])):
        return None
    if not any(len(run) > 1 for run in runs) or re.search(r"[A-Za-z]\([A-Za-z]\)|/", prose):
        return None
    return _normalise_words(prose)


def _normalise_words(text: str) -> Words:
    words = re.findall(r"[^\W_]+(?:\.[0-9]+)?|[-+*/^=<>_\\|%$!]", text.casefold().replace("'", ""))
    words = [word for word in words if word != "-"]
    if len(words) > 1:
        words = [word for word in words if word not in _ARTICLES] or words
    joined = " ".join(words)
    return Words(_SYNONYMS.get(joined, joined))


def _parse_quantity(text: str, gold: bool, depth: int) -> Node | None:
    currency = _CURRENCY.match(text)
    currency_unit: list[str] = []
    if currency and currency["rest"].strip():
        sign = currency["currency"].replace("\\", "").strip()
        currency_unit = parse_unit("$" if sign.endswith("$") else sign) or []
        text = currency["sign"] + currency["rest"]
    value, unit = split_unit(text, gold)
    words = parse_unit(unit) if unit else []
    if words is None or not value.strip() or not (words or currency_unit):
        return None
    scale = 1
    while words and words[0] in SCALES:
        scale *= SCALES[words.pop(0)]
    if currency_unit and words[: len(currency_unit)] != currency_unit:
        words = currency_unit + words
    if scale > 1:
        value = f"({value})\\cdot {scale}"
    inner = _parse(value, gold, depth)
    if isinstance(inner, Words | PlainList | tree.Relation | tree.Quantity):
        return None
    return tree.Quantity(inner, tuple(words)) if words else inner


def _formula_or_words(text: str) -> Node:
    """Return a formula, or prose where a run of letters can be no product of variables."""
    runs = re.findall(
        r"(?<![A-Za-z\\])[A-Za-z]{3,}", re.sub(r"\\(?:begin|end)\s?\{[a-z]+\}", "", text)
    )
    words = [run for run in runs if not _VARIABLES.fullmatch(run) and list(run) != sorted(run)]
    words += re.findall(r"\\text\{[^{}]*[A-Za-z]{2,}[^{}]*\}", text)
    if words and not re.search(r"\\(?:frac|sqrt|begin|int|sum|cdot|overline|bar|vec|mathbb)", text):
        return _normalise_words(re.sub(r"\\text", " ", text))
    return Formula(text)
