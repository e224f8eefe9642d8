"""E-mail addresses, also in disguise, and web addresses."""

from __future__ import annotations

from safety.patterns.recogniser import START, Candidate, Extent, Recogniser

COMMON_TLD = (
    "com|org|net|edu|gov|mil|int|info|biz|name|io|ai|co|me|dev|app|tech|online|site|store|xyz|cloud|eu|uk|de|fr|es|it|"
    "nl|be|ch|at|pl|cz|se|no|dk|fi|pt|gr|ie|us|ca|au|nz|in|jp|cn|kr|br|mx|ar|za|ru|ua|tr|il"
)
"""Endings that make a spaced or spelt-out address one. Others are too often words."""

BARE_TLD = "com|org|edu|gov|mil|eu|uk|de|fr|nl|ch|pl|jp|br|au|ca|ru"
"""Endings that make a name an address without a scheme. ``net``, ``io`` and ``info`` are often attributes in code."""

LOCAL_CHARACTER = r"[\w.+%&'-]"
LOCAL = rf"\w{LOCAL_CHARACTER}{{0,63}}"  # RFC 5321, section 4.5.3.1.1: 64 octets
LOCAL_START = rf"(?:{START}|(?<={LOCAL_CHARACTER}{{64}}))"  # at a word, and everywhere in a run longer than an address
LABEL = r"[\w-]{1,63}"
TLD = r"(?:xn--[a-z0-9-]{2,59}|\p{L}{2,24})"
OPEN, CLOSE = r"\s?[\[({<]\s?", r"\s?[\])}>]\s?"
BRACKETED_AT = rf"{OPEN}(?i:at|@){CLOSE}"
BRACKETED_DOT = rf"{OPEN}(?i:dot|\.|punkt|punto|point){CLOSE}"
DOT = rf"(?:\.|{BRACKETED_DOT}|\s(?i:dot)\s)"

PLAIN = rf"{LOCAL}(?:@|%40)(?:{LABEL}\.){{1,8}}{TLD}"  # %40 is @ in a query string
BRACKETED = (
    rf"\w[\w+%-]{{0,63}}(?:(?:\.|{BRACKETED_DOT})[\w+%-]{{1,63}}){{0,3}}{BRACKETED_AT}{LABEL}(?:{DOT}{LABEL}){{1,6}}"
)
SPACED = rf"{LOCAL}(?:\s@\s?|@\s)(?:{LABEL}\s?\.\s?){{1,4}}(?i:{COMMON_TLD})\b"
SPELT = rf"\w[\w.+%-]{{0,63}}\s(?i:at|@)\s{LABEL}(?:\s(?i:dot)\s{LABEL}){{0,4}}\s(?i:dot)\s(?i:{COMMON_TLD})\b"

EMAIL = Recogniser(
    kind="EMAIL_ADDRESS",
    pattern=rf"{LOCAL_START}(?:{PLAIN}|{BRACKETED}|{SPACED}|{SPELT})",
    max_length=768,
    gate=(
        rf"\w{LOCAL_CHARACTER}{{0,63}}?%40|\w{LOCAL_CHARACTER}{{0,63}}+"
        r"(?:@|\Z|\s(?:\Z|@|[aA](?:\Z|[tT](?:\s|\Z)))|\s?[\[({<]\s?(?:\Z|[aA@dDpP.]))"
    ),
    boundary=LOCAL_START,
    specificity=30,
)

URL_CHARACTER = r"[^\s<>\"'`{}|\\^\[\]]"
MAX_URL = 256  # characters that one match can have
RUN = 184  # characters from which on a match may have been cut, so that what follows belongs to it


def without_punctuation(candidate: Candidate) -> Extent | None:
    """Returns the extent without the punctuation that ends the sentence, and without closing parentheses that the
    address did not open."""
    text = candidate.text
    if len(text) >= RUN:
        return 0, len(text)
    while text and (text[-1] in ".,;:!?*_~" or (text[-1] == ")" and text.count(")") > text.count("("))):
        text = text[:-1]
    return (0, len(text)) if text else None


URL = Recogniser(
    kind="URL",
    pattern=(
        rf"{START}(?:(?i:https?|ftps?|wss?)://{URL_CHARACTER}{{1,{MAX_URL - 8}}}"
        rf"|(?i:www)\.[\w-]{{1,63}}\.{URL_CHARACTER}{{2,{RUN - 4}}}"
        rf"|(?<![@.-])(?:[\p{{L}}\d](?:[\p{{L}}\d-]{{0,62}})\.){{1,4}}(?i:{BARE_TLD})(?![\w(\[=@-]|\.\w)"
        rf"(?:/{URL_CHARACTER}{{0,128}})?)"
    ),
    max_length=MAX_URL + 192,
    gate=r"\w[\w-]{0,63}+(?:\Z|\.(?:\Z|\w)|:(?:\Z|/(?:\Z|/)))",
    specificity=20,
    validate=without_punctuation,
    more=rf"{URL_CHARACTER}{{1,{MAX_URL}}}",
    run_length=RUN,
)
