"""In which language an answer is: py3langid's naive Bayes over byte n-grams (Lui and Baldwin 2012, "langid.py: An
Off-the-shelf Language Identification Tool"), among the languages that a model may well answer in.

Its other languages, mostly small relatives of these, are left out: short answers are taken for them too often.
"""

from __future__ import annotations

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# ISO 639-1: what IFEval asks for, and what a model may answer in instead.
ASKED = "ar bg bn de fa fi gu hi it kn ko mr ne pa pt ru sw ta te th ur vi"
OTHERS = "cs da el en es fr he hu id ja ml nl no pl ro sv tr uk zh"
LANGUAGES = (*ASKED.split(), *OTHERS.split())


def response_language(answer: str, *, language: str) -> bool:
    """The answer, taken as a whole, is in the language. Raises ValueError for one that is not among ``LANGUAGES``."""
    if language not in LANGUAGES:
        raise ValueError(f"languages are {', '.join(LANGUAGES)}, got {language!r}")
    return is_language(answer, language)


def is_language(text: str, language: str) -> bool:
    """Whether ``text`` is likelier in ``language`` than in each other one. Text without a letter is in none. Capitals
    are taken as small letters, which the identifier knows better."""
    if not any(character.isalpha() for character in text):
        return False
    code, _ = _identifier().classify(text.lower())
    return bool(code == language)


@cache
def _identifier() -> LanguageIdentifier:
    """Loaded on first use: a second, which only IFEval needs."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier
