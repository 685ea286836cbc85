"""How much of a text repeats what came before in it, in any script."""

import re

# Ranges of the scripts that write words without spaces between them, after the classes ID and SA
# of Unicode's line breaking (UAX 14): Thai, Lao, Tibetan, Myanmar, Khmer, New Tai Lue, Tai Tham,
# Javanese, Cham, Tai Viet, Han, kana, bopomofo, Yi, and their punctuation.
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua980-\ua9df\uaa00-\uaadf"
    "\u2e80-\u2fdf\u3001-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def text_units(text: str) -> list[str]:
    """What a text is counted in: words, and single characters of scripts without spaces."""
    return _UNIT.findall(text)


def repeated_frac(text: str, ngram: int) -> float:
    """Fraction of the n-grams of `ngram` `text_units` that occurred before; 0 without any."""
    units = text_units(text)
    total = len(units) - ngram + 1
    if total < 1:
        return 0.0
    distinct = {tuple(units[start : start + ngram]) for start in range(total)}
    return 1 - len(distinct) / total
