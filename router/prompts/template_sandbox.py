"""The Jinja sandbox of prompt templates: a small part of the language, in which every operation has a bound.

Administrators of tenants write these templates, and they run in a process that serves all tenants. Python cannot
interrupt a template, so nothing in it may run long: the syntax is a list of node types, functions and methods are lists
of names, each loop iteration is counted, and each operation that makes text is charged its length before it is made.
The chat templates of models have a sandbox of their own in the engine, which must offer all that transformers does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, nodes, pass_context
from jinja2.exceptions import TemplateSyntaxError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from router.prompts.metered_filters import charge_method, metered_filters
from router.prompts.template_budget import BUDGET, MAX_STEPS, Budget, TemplateLimitError, budget_of, charge_value

MAX_NODES = 1_000  # of the syntax tree of one template; compiling one takes about 150 µs
MAX_DEPTH = 24  # of nodes within each other; the parser and Python's compiler recurse once per level
MAX_NUMBER = 2**63
MAX_RANGE = MAX_STEPS

ALLOWED_NODES: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.With),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Call, nodes.CondExpr),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.Concat),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand),
)
"""What a template may consist of. Left out: macros, imports, blocks, recursion, ``set`` blocks, powers."""

ALLOWED_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset({"upper", "lower", "title", "capitalize", "strip", "lstrip", "rstrip", "startswith", "endswith"}),
    dict: frozenset({"items", "keys", "values", "get"}),
    LoopContext: frozenset(
        {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"}
    ),
}
ALLOWED_TESTS = (
    *("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping"),
    *("sequence", "iterable", "in", "odd", "even", "divisibleby", "==", "!=", "<", "<=", ">", ">=", "eq", "ne", "lt"),
    *("le", "gt", "ge", "equalto"),
)
_LOOP, _JOINED, _BUILT, _TIMED = "_loop", "_joined", "_built", "_timed"
_SPECIAL_NAMES = ("self", "super", "caller", "varargs", "kwargs")  # that Jinja itself gives a meaning


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of prompt templates. Variables that are not defined are errors."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, cache_size=0, finalize=_printed
        )
        self.filters = {**OFFERED, _LOOP: _counted, _JOINED: _concatenated, _BUILT: _built, _TIMED: _timed}
        self.tests = {name: self.tests[name] for name in ALLOWED_TESTS}
        self.globals = {"range": _range}

    def compiled(self, source: str) -> Template:
        """Returns the template of ``source``. Raises TemplateSyntaxError if ``source`` is no template, or uses a part
        of the language that is not allowed."""
        try:
            return self.from_string(self._bounded(self.parse(source)))
        except (RecursionError, MemoryError, SyntaxError, OverflowError, ValueError) as error:
            if isinstance(error, TemplateError):
                raise
            raise TemplateSyntaxError("it is nested too deeply or has a number that is too large", 1) from None

    def rendered(self, template: Template, variables: Mapping[str, Any], budget: Budget) -> str:
        """Returns ``template`` rendered with ``variables``.

        Raises UndefinedError for a variable that is missing, TemplateLimitError if ``budget`` is exceeded, and
        TemplateError for any other failure.
        """
        pieces = []
        try:
            for piece in template.generate({**variables, BUDGET: budget}):
                budget.charge(len(piece))
                pieces.append(piece)
        except TemplateError:
            raise
        except Exception as error:  # the types of variables are the client's, and an operation may not suit them
            raise TemplateError(f"{type(error).__name__} while it is rendered") from error
        return "".join(pieces)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Returns whether a template may use the attribute ``attr``: only the methods in ALLOWED_METHODS are safe."""
        allowed = next((names for kind, names in ALLOWED_METHODS.items() if isinstance(obj, kind)), frozenset())
        return attr in allowed

    def is_safe_callable(self, obj: Any) -> bool:
        """Returns whether a template may call ``obj``: only ``range``, and methods that ``is_safe_attribute``
        allows."""
        return obj is _range or getattr(obj, "__self__", None) is not None

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls ``obj`` with what it reads charged. Raises SecurityError for what is not safe, and
        TemplateLimitError."""
        charge_method(budget_of(context), obj, args)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Returns the result of a binary operator. Numbers are bounded, and the length of a resulting list or text is
        charged before it is made.

        Raises TemplateLimitError for a result that is too large, and TemplateError for other types of operands.
        """
        budget = budget_of(context)
        if isinstance(left, int | float) and isinstance(right, int | float):
            return _bounded_number(self.binop_table[operator](left, right))
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list):
            budget.charge(len(left) + len(right))
            for each in (left, right) if isinstance(left, list) else ():
                charge_value(budget.work, each)  # all it holds: a list of one long text doubles at each addition
            return self.binop_table[operator](left, right)
        for text, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(text, str) and isinstance(times, int):
                budget.charge(len(text) * max(0, times))
                return text * times
        raise TemplateError(f"{type(left).__name__} {operator} {type(right).__name__} is not possible")

    def _bounded(self, tree: nodes.Template) -> nodes.Template:
        """Returns ``tree`` with its loops counted, and with the texts and lists that it builds charged. Raises
        TemplateSyntaxError for nodes and names that are not allowed."""
        _check(tree, 0)
        if sum(1 for _ in _all(tree)) > MAX_NODES:
            raise TemplateSyntaxError(f"it has more than {MAX_NODES} expressions", 1)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filter(loop.iter, _LOOP)
        for parent in _all(tree):
            charged_already = isinstance(parent, nodes.Filter) and parent.name in (_JOINED, _BUILT, _TIMED)
            for name, value in () if charged_already else list(parent.iter_fields()):
                if isinstance(value, list):
                    value[:] = [_charged(each) for each in value]
                elif isinstance(value, nodes.Node):
                    setattr(parent, name, _charged(value))
        return tree


def missing_name(error: UndefinedError) -> str | None:
    """Returns the variable that ``error`` says is undefined; None if it is something else, such as an item."""
    words = (error.message or "").split("'")
    return words[1] if len(words) == 3 and words[2] == " is undefined" else None


def _all(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in list(node.iter_child_nodes()):
        yield from _all(child)


def _check(node: nodes.Node, depth: int) -> None:
    """Raises TemplateSyntaxError for a node that is not allowed, naming its line."""
    line = getattr(node, "lineno", 1) or 1
    if depth > MAX_DEPTH:
        raise TemplateSyntaxError(f"it is nested deeper than {MAX_DEPTH}", line)
    if type(node) not in ALLOWED_NODES:
        raise TemplateSyntaxError(f"it uses {type(node).__name__}, which prompt templates do not have", line)
    if isinstance(node, nodes.For) and node.recursive:
        raise TemplateSyntaxError("a loop cannot be recursive", line)
    if isinstance(node, nodes.Name) and (node.name.startswith("_") or node.name in _SPECIAL_NAMES):
        raise TemplateSyntaxError(f"{node.name!r} is no name for a variable", line)
    for kind, known in ((nodes.Filter, OFFERED), (nodes.Test, _TESTS)):
        if isinstance(node, kind) and node.name not in known:
            raise TemplateSyntaxError(f"there is no {kind.__name__.lower()} {node.name!r}", line)
    if isinstance(node, nodes.Filter | nodes.Test | nodes.Call) and (node.dyn_args or node.dyn_kwargs):
        raise TemplateSyntaxError("arguments cannot be unpacked", line)
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and abs(node.value) > MAX_NUMBER:
        raise TemplateSyntaxError("a number is too large", line)
    if isinstance(node, nodes.Const) and isinstance(node.value, str) and not _is_unicode(node.value):
        raise TemplateSyntaxError("a text has half of a surrogate pair", line)
    for child in node.iter_child_nodes():
        _check(child, depth + 1)


def _is_unicode(text: str) -> bool:
    """Returns whether a text can be encoded: an escape such as "\\ud800" makes one that no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _charged(node: Any) -> Any:
    """Returns ``node``. What makes a text or a list becomes the call of a filter, which charges it. After what reads a
    text or a list of the client, as a comparison does, the clock is looked at."""
    match node:
        case nodes.Concat():
            return _filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED)
        case nodes.List() | nodes.Dict():
            return _filter(node, _BUILT)
        case nodes.Tuple(ctx="load"):
            return _filter(node, _BUILT)
        case nodes.Compare() | nodes.Test() | nodes.Getitem(arg=nodes.Slice()):
            return _filter(node, _TIMED)
        case _:
            return node


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """Yields ``items``, each of which counts as a step."""
    budget = budget_of(context)
    for item in items:
        budget.step()
        yield item


@pass_context
def _concatenated(context: Context, items: Sequence[Any]) -> str:
    return _joined(context, "", items)


@pass_context
def _built(context: Context, value: Any) -> Any:
    """Charges all that ``value`` holds: a list that holds itself twice, many times over, would be exponentially large
    to print or to compare."""
    charge_value(budget_of(context).charge, value)
    return value


@pass_context
def _timed(context: Context, value: Any) -> Any:
    budget_of(context).check_time()
    return value


@pass_context
def _printed(context: Context, value: Any) -> Any:
    """Returns ``value`` as it is printed. Its text is charged before it is made."""
    return value if isinstance(value, str) else _text(budget_of(context), value)


@pass_context
def _join(context: Context, items: Iterable[Any], separator: str = "") -> str:
    return _joined(context, str(separator), list(items))


def _joined(context: Context, separator: str, items: Sequence[Any]) -> str:
    budget = budget_of(context)
    texts = [_text(budget, item) for item in items]
    budget.charge(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


@pass_context
def _replace(context: Context, text: str, old: str, new: str) -> str:
    budget = budget_of(context)
    text, old, new = (_text(budget, each) for each in (text, old, new))
    budget.charge(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


@pass_context
def _to_json(context: Context, value: Any, indent: int | None = None) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    if indent is not None and not 0 <= int(indent) <= 8:
        raise TemplateError("indent is 0 to 8")
    budget = budget_of(context)
    charge_value(budget.charge, value)
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    budget.charge(len(text))
    return text


@pass_context
def _string(context: Context, value: Any) -> str:
    return _text(budget_of(context), value)


def _text(budget: Budget, value: Any) -> str:
    """Returns ``value`` as text. Raises TemplateLimitError, and UndefinedError for a variable that is missing."""
    charge_value(budget.charge, value)
    return str(value)


def _range(*bounds: int) -> range:
    made = range(*bounds)
    if len(made) > MAX_RANGE:
        raise TemplateLimitError(f"a range has more than {MAX_RANGE} numbers")
    return made


def _bounded_number(value: Any) -> Any:
    if abs(value) > MAX_NUMBER:
        raise TemplateLimitError("a number is too large")
    return value


_TESTS = frozenset(ALLOWED_TESTS)
OFFERED = {**metered_filters(), "join": _join, "replace": _replace, "tojson": _to_json, "string": _string}
"""The filters that templates may use."""
