"""National identification numbers. A single check digit proves little, so most kinds need a word such as "passport"
nearby."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stdnum.br import cpf
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.us import ssn

from safety.patterns.recogniser import NUMBER, START, Candidate, Extent, Recogniser, Validator, in_context, whole

END = r"(?![\w]|[.\-]\d)"
DIGITS = r"\d(?:(?:[ .\-]?\d){7}|(?:[ .\-]?\d){0,6}[ .\-]?\Z)"  # eight or more
BEGIN = rf"{START}(?<!\d[.,\-/])"


def checked(
    valid: Callable[[str], Any],
    words: str | None = None,
    sure: Callable[[str], bool] = lambda text: False,
    reach: int = 56,
) -> Validator:
    """Returns a validator that applies ``valid``, a check of stdnum. With ``words``, a pattern, it must also match
    within ``reach`` characters before the number, or ``sure`` must accept the number."""
    beside = None if words is None else in_context(words, reach)

    def validate(candidate: Candidate) -> Extent | None:
        if not valid(candidate.text.upper()):
            return None
        return whole(candidate) if beside is None or sure(candidate.text) or beside(candidate.context) else None

    return validate


def formatted(separator: str, count: int) -> Callable[[str], bool]:
    """Returns a function that tests whether a text has ``separator`` exactly ``count`` times."""
    return lambda text: text.count(separator) == count


def anything(text: str) -> bool:
    """Returns whether ``text`` has a digit: the check for kinds of numbers that only the nearby words identify."""
    return any(map(str.isdigit, text))


US_SSN = Recogniser(
    kind="US_SSN",
    pattern=rf"{BEGIN}\d{{3}}([ \-]?)\d{{2}}\1\d{{4}}{END}",
    max_length=16,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=55,
    validate=checked(
        lambda text: ssn.is_valid(text.replace(" ", "-")), r"ssn|social|tax(?:payer)?|security", formatted("-", 2)
    ),
)
DE_TAX_ID = Recogniser(
    kind="DE_TAX_ID",
    pattern=rf"{BEGIN}\d{{2}} ?\d{{3}} ?\d{{3}} ?\d{{3}}{END}",
    max_length=20,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=54,
    validate=checked(idnr.is_valid, r"steuer|idnr|tax|tin\b"),
)
FR_NIR = Recogniser(
    kind="FR_NIR",
    pattern=rf"{BEGIN}[12] ?\d{{2}} ?\d{{2}} ?[\dAB]{{2}} ?\d{{3}} ?\d{{3}} ?\d{{2}}{END}",
    max_length=28,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=56,
    validate=checked(nir.is_valid),
)
UK_NHS = Recogniser(
    kind="UK_NHS",
    pattern=rf"{BEGIN}\d{{3}}([ \-]?)\d{{3}}\1\d{{4}}{END}",
    max_length=16,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=54,
    validate=checked(nhs.is_valid, r"nhs|health"),
)
ES_NIF = Recogniser(
    kind="ES_NIF",
    pattern=rf"{BEGIN}\d{{8}}[ \-]?[A-Za-z](?!\w)",
    max_length=12,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=54,
    validate=checked(dni.is_valid),
)
ES_NIE = Recogniser(
    kind="ES_NIE",
    pattern=rf"{START}[XYZxyz][ \-]?\d{{7}}[ \-]?[A-Za-z](?!\w)",
    max_length=14,
    gate=r"[XYZxyz](?:\Z|[ \-]?(?:\Z|\d))",
    specificity=54,
    validate=checked(nie.is_valid),
)
IT_FISCAL_CODE = Recogniser(
    kind="IT_FISCAL_CODE",
    pattern=rf"{START}[A-Za-z]{{6}}[0-9A-Za-z]{{2}}[A-Za-z][0-9A-Za-z]{{2}}[A-Za-z][0-9A-Za-z]{{3}}[A-Za-z](?!\w)",
    max_length=18,
    gate=r"[A-Za-z]{1,6}+(?:\Z|[0-9A-Za-z]{2}[A-Za-z][0-9A-Za-z]{2}[A-Za-z]\d|[0-9A-Za-z]{1,6}\Z)",
    specificity=54,
    validate=checked(codicefiscale.is_valid),
)
NL_BSN = Recogniser(
    kind="NL_BSN",
    pattern=rf"{BEGIN}\d{{4}}[ .]?\d{{2}}[ .]?\d{{3}}{END}",
    max_length=16,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=53,
    validate=checked(bsn.is_valid, r"bsn|burger|sofi"),
)
IN_AADHAAR = Recogniser(
    kind="IN_AADHAAR",
    pattern=rf"{BEGIN}\d{{4}}([ \-]?)\d{{4}}\1\d{{4}}{END}",
    max_length=18,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=54,
    validate=checked(aadhaar.is_valid, r"aadha+r|uidai|uid\b"),
)
BR_CPF = Recogniser(
    kind="BR_CPF",
    pattern=rf"{BEGIN}\d{{3}}\.?\d{{3}}\.?\d{{3}}-?\d{{2}}{END}",
    max_length=18,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=54,
    validate=checked(cpf.is_valid, r"cpf|cadastro", formatted(".", 2)),
)
US_PASSPORT = Recogniser(
    kind="US_PASSPORT",
    pattern=rf"{BEGIN}[A-Za-z]?\d{{8,9}}{END}",
    max_length=12,
    gate=r"[A-Za-z]?(?:\Z|\d(?:\d{7}|\d{0,6}\Z))",
    specificity=15,
    validate=checked(anything, r"passport"),
)
US_DRIVER_LICENSE = Recogniser(
    kind="US_DRIVER_LICENSE",
    pattern=rf"{BEGIN}[A-Za-z]{{0,2}}\d(?:[ \-]?\d){{5,14}}{END}",
    max_length=36,
    gate=r"[A-Za-z]{0,2}(?:\Z|\d(?:(?:[ \-]?\d){5}|(?:[ \-]?\d){0,4}[ \-]?\Z))",
    specificity=16,
    validate=checked(anything, r"driv(?:er'?s?|ing) licen[cs]e|licen[cs]e|dl\b", reach=28),
)
US_BANK_NUMBER = Recogniser(
    kind="US_BANK_NUMBER",
    pattern=rf"{BEGIN}\d{{8,17}}{END}",
    max_length=20,
    boundary=NUMBER,
    gate=DIGITS,
    specificity=14,
    validate=checked(anything, r"(?:bank|savings|checking|account|acct)[\w .:#']{0,20}(?:number|no\b|#)|routing"),
)

NATIONAL = (
    US_SSN, DE_TAX_ID, FR_NIR, UK_NHS, ES_NIF, ES_NIE, IT_FISCAL_CODE, NL_BSN, IN_AADHAAR, BR_CPF,
    US_PASSPORT, US_DRIVER_LICENSE, US_BANK_NUMBER,
)  # fmt: skip
