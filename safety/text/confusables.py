"""Letters that look like Latin letters, without those that Unicode's compatibility decomposition already maps.

The pairs are a curated part of those of Unicode Technical Standard 39 (confusables.txt), after case folding: a letter
has one image for both of its cases, so that words of its own script are found whatever their case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_LOOK_ALIKES = (
    # Cyrillic
    ("авсԁеԍһіјкӏмнопԛгѕтѵԝхуьѡҽҫғәүұ", "abcdeghijklmhonqrstvwxybwecfeyy"),
    ("рԏӽҳҝқңԟҙҏ", "ptxxkkhkep"),
    # Greek
    ("αβεζηικμνορστυχγωϲϳϱ", "abeznikmvopstuxywcjp"),
    # Armenian
    ("օսոհզցքյ", "ounhqgpj"),
    # Cherokee, which folds to capitals
    ("ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᏀᏃᏒᏔᏕᏙᏚᏞᏟᏢᏦᏴᎩᏏᏻ", "drtiajewmhgzrwsvslcpkbybg"),
    # Lisu, capitals only
    ("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓨꓪꓫꓬꓮꓰꓲꓳꓴ", "bpdtgkjczfmnlsrvhgwxyaeiou"),
    # Latin letters whose names do not say which letter they look like
    ("ıȷɑɡɩəɛɔʌɯʋƅꞵꝋ", "ijagieecvwvbbo"),
)
_LATIN_NAME = re.compile(r"(?:LATIN|MODIFIER|SQUARED|CIRCLED|NEGATIVE)\b.*\b([A-Z])(?: WITH [A-Z ]+)?")
"""Names of variants of a Latin letter: ``LATIN LETTER SMALL CAPITAL A``, ``LATIN SMALL LETTER O WITH STROKE``,
``NEGATIVE SQUARED LATIN CAPITAL LETTER B``."""

LOOK_ALIKES: Mapping[str, str] = {
    letter: image for letters, images in _LOOK_ALIKES for letter, image in zip(letters, images, strict=True)
}
"""The Latin letter, in lower case, that a case-folded letter of another script looks like."""

LEET: Mapping[str, str] = dict(zip("0134578@$", "oieastbas", strict=True))
"""Digits and signs that stand for letters. ``!``, ``|`` and brackets are not among them: they also end words."""


def latin_image(char: str) -> str | None:
    """Returns the Latin letter, in lower case, that a case-folded character looks like; None if it looks like none."""
    if char in LOOK_ALIKES:
        return LOOK_ALIKES[char]
    if char.isascii():
        return None
    name = _LATIN_NAME.fullmatch(unicodedata.name(char, ""))
    return name[1].lower() if name else None
