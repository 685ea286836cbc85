"""The language of a response, as py3langid detects it, and its case.

IFEval uses langdetect, which the lab does not need: py3langid is a dependency already, and its
verdict does not vary from call to call. The languages are those that both know.
"""

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# All of langdetect's but Chinese, which it splits by script.
LANGUAGES = (
    "af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr",
    "gu", "he", "hi", "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ne",
    "nl", "no", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sv", "sw", "ta", "te", "th", "tl",
    "tr", "uk", "ur", "vi", "zh",
)  # fmt: skip


class LanguageModelError(UserError):
    """The model writes a temporary file when it is loaded, and could not; a sandbox forbids it."""


def is_in_language(response: str, language: str) -> bool:
    """All of it is in the language; a text without letters is in every language."""
    return detected_language(response) in (language, None)


def is_english_in_capitals(response: str) -> bool:
    """It is English without a small letter."""
    return response.isupper() and is_in_language(response, "en")


def is_english_in_small_letters(response: str) -> bool:
    """It is English without a capital letter."""
    return response.islower() and is_in_language(response, "en")


def detected_language(text: str) -> str | None:
    """The likeliest of `LANGUAGES`; None for a text without letters."""
    if not any(map(str.isalpha, text)):
        return None
    code, _ = _identifier().classify(text)
    return str(code)


def load_language_model() -> None:
    """Load the model that detects languages; where it cannot be loaded, detection says so."""
    with suppress(LanguageModelError):
        _identifier()


@cache
def _identifier() -> "LanguageIdentifier":
    # It takes a second and 80 MB, which nobody pays who asks for no language.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    try:
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    except OSError as error:
        raise LanguageModelError(
            "a response's language: the model that detects it could not write a temporary file; "
            "free some space, or set TMPDIR to a folder that has some"
        ) from error
    identifier.set_languages(LANGUAGES)
    return identifier
