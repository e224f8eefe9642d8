"""Filters and methods of Jinja and Python that templates may use, each charged for what it reads before it runs.

Some have arguments that decide how long they run, such as the digits of ``round``: these are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

from jinja2 import TemplateError, pass_context
from jinja2.filters import FILTERS, make_multi_attrgetter
from jinja2.runtime import Context

from router.prompts.template_budget import Budget, TemplateLimitError, budget_of, charge_value

CONSTANT = ("abs", "count", "d", "default", "first", "float", "int", "items", "last", "length")
"""Filters whose time does not depend on their input, or hardly."""
BY_CHARACTER = ("capitalize", "lower", "title", "upper")
COMPARE = ("dictsort", "max", "min", "sort", "unique")
"""Filters that compare elements, of which they read all texts."""
TAKE_ENVIRONMENT = frozenset({"max", "min", "sort", "sum", "unique"})  # as their first argument
ELEMENT_WORK = 8  # characters that are read in the time that an element takes to be sorted
MAX_ATTRIBUTE = 64  # characters of the name by which elements are sorted: each part of it is looked up in each of them
MAX_STRIPPED = 64  # characters that are stripped: each character of a text is looked for among them
MAX_DIGITS = 15  # that numbers are rounded to: Python computes the power of ten first

Filter = Callable[..., Any]


def metered_filters() -> Mapping[str, Filter]:
    """Returns the filters by their names."""
    constant = {name: FILTERS[name] for name in CONSTANT}
    texts = {name: _metered(name, 1) for name in BY_CHARACTER}
    lists = {name: _metered(name, ELEMENT_WORK) for name in ("reverse", *COMPARE)}
    return {**constant, **texts, **lists, "list": _list, "round": _round, "sum": _sum, "trim": _trim}


def charge_method(budget: Budget, method: Any, arguments: tuple[Any, ...]) -> None:
    """Charges a call of a text's ``method``; others take no time. Raises TemplateLimitError."""
    text = getattr(method, "__self__", None)
    if isinstance(text, str):
        if method.__name__ in ("strip", "lstrip", "rstrip"):
            _check_stripped(arguments[0] if arguments else None)
        budget.work(len(text))


def _metered(name: str, work: int) -> Filter:
    """Returns the filter ``name``, which is charged ``work`` for each character or element."""
    function = FILTERS[name]

    @pass_context
    def metered(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        texts = [each for each in (*arguments, *named.values()) if isinstance(each, str)]
        longest = max(map(len, texts), default=0)
        if longest > MAX_ATTRIBUTE:
            raise TemplateLimitError(f"the name of an attribute has more than {MAX_ATTRIBUTE} characters")
        value = _charged(budget_of(context), value, work + longest)
        if name in COMPARE:
            _charge_compared(context, value, texts[0] if texts else None)
        given = (context.environment,) if name in TAKE_ENVIRONMENT else ()
        return function(*given, value, *arguments, **named)

    return metered


def _charge_compared(context: Context, value: Any, attribute: str | None) -> None:
    """Charges what is compared of the elements of ``value``: all texts in them, or those in their ``attribute``."""
    work = budget_of(context).work
    if isinstance(value, Mapping):
        charge_value(work, value)
    elif not isinstance(value, str):
        read = None if attribute is None else make_multi_attrgetter(context.environment, attribute)
        for each in value:
            charge_value(work, each if read is None else read(each))


def _charged(budget: Budget, value: Any, work: int) -> Any:
    """Returns ``value``, charged ``work`` for each of its characters or elements. An iterator, which has no length, is
    returned as a list, of which each element counts as an iteration of a loop."""
    if isinstance(value, Iterator):
        value = list(_counted(budget, value))
    if isinstance(value, Sized):
        budget.work(work * len(value))
    return value


def _counted(budget: Budget, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        budget.step()
        yield item


@pass_context
def _list(context: Context, value: Any) -> list[Any]:
    return list(_charged(budget_of(context), value, ELEMENT_WORK))


@pass_context
def _round(context: Context, value: Any, precision: int = 0, method: str = "common") -> Any:
    if not -MAX_DIGITS <= precision <= MAX_DIGITS:
        raise TemplateLimitError(f"numbers are rounded to {MAX_DIGITS} digits at most")
    return FILTERS["round"](value, precision, method)


@pass_context
def _sum(context: Context, items: Any, attribute: str | int | None = None, start: float = 0) -> Any:
    if not isinstance(start, int | float):
        raise TemplateError("a sum is of numbers")  # of lists, it would take time in the square of their number
    return _metered("sum", ELEMENT_WORK)(context, items, attribute, start)


@pass_context
def _trim(context: Context, value: Any, chars: str | None = None) -> str:
    _check_stripped(chars)
    return str(FILTERS["trim"](_charged(budget_of(context), value, 1), chars))


def _check_stripped(characters: Any) -> None:
    """Raises TemplateLimitError for more than MAX_STRIPPED characters to strip."""
    if isinstance(characters, str) and len(characters) > MAX_STRIPPED:
        raise TemplateLimitError(f"more than {MAX_STRIPPED} characters are stripped")
