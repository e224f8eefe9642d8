"""The sandbox of prompt templates: what they can do, what they cannot, and that none runs long."""

from __future__ import annotations

import time
from typing import Any

import pytest
from jinja2 import TemplateError, UndefinedError
from jinja2.exceptions import SecurityError, TemplateSyntaxError

from router.prompts.template_budget import MAX_CHARACTERS, MAX_RENDER_S, Budget, TemplateLimitError
from router.prompts.template_sandbox import MAX_NODES, TemplateSandbox

SANDBOX = TemplateSandbox()
HOSTILE = {
    "long": "a" * 60_000,
    "other": "b" * 59_999 + "a",
    "xs": list(range(5_000)),
    "many": [["a"]] * 10_000,
    "dots": ".".join("0" * 20_000),
    "texts": ["É" * 200_000],
    "numbers": list(range(300_000)),
    "x": 1,
}


def rendered(source: str, **variables: Any) -> str:
    return SANDBOX.rendered(SANDBOX.compiled(source), variables, Budget())


@pytest.mark.parametrize(
    ("source", "variables", "text"),
    [
        ("Hello {{ name }}!", {"name": "{{ 7 * 7 }}"}, "Hello {{ 7 * 7 }}!"),
        (
            "{% for a in xs %}{{ loop.index }}{{ a.b }}{% if not loop.last %}, {% endif %}{% endfor %}",
            {"xs": [{"b": 1}]},
            "11",
        ),
        ("{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}", {"d": {"b": 1, "a": None}}, "a=None;b=1;"),
        ("{% for k, v in d.items() %}{{ k ~ v ~ 1 }}{% endfor %}", {"d": {"a": "b"}}, "ab1"),
        ("{{ x|default('none') }}{% if y is defined %}!{% endif %}", {}, "none"),
        ("{{ x|tojson }}", {"x": {"a": ["<ü>", 1.5, None, True]}}, '{"a": ["<ü>", 1.5, null, true]}'),
        ("{{ x|upper|replace('A', 'b')|trim }} {{ x[1:] }}", {"x": " a"}, "b a"),
        ("{{ [1, 2] + [3] }} {{ (1, 2) }} {{ {'a': x} }}", {"x": [1]}, "[1, 2, 3] (1, 2) {'a': [1]}"),
        ("{{ 'ab' * 2 }}{{ 7 // 2 }}{{ 7 % 4 }}{{ -1 }}", {}, "abab33-1"),
        ("{% set x = 1 %}{% with y = 2 %}{{ x + y }}{% endwith %}", {}, "3"),
        ("{{ xs|join(', ') }} {{ xs|sum }} {{ xs|sort|first }}", {"xs": [3, 1]}, "3, 1 4 1"),
        ("{{ xs|sum(attribute='n') }} {{ (xs|max(attribute='n')).n }}", {"xs": [{"n": 3}, {"n": 1}]}, "4 3"),
        ("{{ (xs|sort(attribute='n,m')|first).n }}", {"xs": [{"n": 3, "m": 1}, {"n": 1, "m": 2}]}, "1"),
        ("{% for a in xs[1:] if a is odd and a in xs %}{{ a }}{% endfor %}", {"xs": [1, 2, 3]}, "3"),
        ("{{ xs|unique|sort(reverse=true)|join }}{{ xs|reverse|list|last }}", {"xs": [1, 2, 1]}, "211"),
        ("{{ x|trim('-') }}{{ x.strip('-') }}{{ x|list|length }}", {"x": "-a-"}, "aa3"),
        ("{{ 2.5|round }} {{ 2.345|round(1) }} {{ 2.1|round(0, 'ceil') }}", {}, "2.0 2.3 3.0"),
        ("{% raw %}{{ x }}{% endraw %}{# no #}", {}, "{{ x }}"),
        ('Answer as {"a": [1, {"b": "{{ x }}"}]}', {"x": "{%}"}, 'Answer as {"a": [1, {"b": "{%}"}]}'),
        ("<b>{{ x }}</b>", {"x": "<i>"}, "<b><i></b>"),
    ],
)
def test_a_template_has_the_useful_part_of_the_language(source: str, variables: dict[str, Any], text: str) -> None:
    assert rendered(source, **variables) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ x['__class__'] }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ x['format_map']({}) }}",
        "{{ x.encode() }}",
        "{{ x.center(9) }}",
        "{{ ''.join([x]) }}",
        "{{ xs.append(1) }}",
        "{{ d.update({'a': 1}) }}",
        "{{ x() }}",
        "{{ cycler('a') }}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
        "{{ range }}",
        "{{ range.__init__ }}",
        "{{ xs|unique }}",
        "{{ '%s' % x }}",
    ],
)
def test_nothing_but_the_offered_methods_can_be_reached(source: str) -> None:
    with pytest.raises((SecurityError, UndefinedError, TemplateError)):
        rendered(source, x="a", xs=[1], d={"b": 1})


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block b %}{% endblock %}",
        "{% call f() %}{% endcall %}",
        "{% filter upper %}a{% endfilter %}",
        "{% set x %}a{% endset %}",
        "{% for a in x recursive %}{% endfor %}",
        "{% do x %}",
        "{{ x|map('upper') }}",
        "{{ x|attr('y') }}",
        "{{ x|format(1) }}",
        "{{ x|center(99) }}",
        "{{ x|pprint }}",
        "{{ x is sameas y }}",
        "{{ f(*x) }}",
        "{{ 2 ** 9 }}",
        "{{ self }}",
        "{{ _budget }}",
        "{% set ns.x = 1 %}",
        "{{ " + "9" * 30 + " }}",
        "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
        "{{ " + "[" * 30 + "1" + "]" * 30 + " }}",
        "{% if a %}" * 30 + "{% endif %}" * 30,
        "{{ x }}" * (MAX_NODES + 1),
        "{{ x",
        "{% if %}",
        r"{{ '\ud800' }}",
        r"{{ x ~ '\ud83d' ~ '\ude00' }}",
    ],
)
def test_the_rest_of_the_language_is_refused_when_it_is_stored(source: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        SANDBOX.compiled(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{% set x = 'aaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
        "{% set x = 'aaaa' %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = x + x %}" * 40,
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}",
        "{% set x = [1] %}{% set y = [1] %}" + "{% set x = [x, x] %}{% set y = [y, y] %}" * 40 + "{{ x == y }}",
        "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 40 + "{{ x|tojson }}",
        "{{ long|replace('', long) }}",
        "{{ long|replace('a', long)|replace('a', long) }}",
        "{{ xs|join(long) }}",
        "{{ long }}" * 90,
        "{% for a in xs %}{{ long|upper|lower|title }}{% endfor %}",
        "{% set x = 9223372036854775807 * 9 %}",
        "{% set x = 1e308 * 1e308 %}",
        "{{ range(1000000000000)|list }}",
        "{{ range(0, 9223372036854775807 + 0)|list }}",
        "{{ [" + "long|list|sort|first, " * 150 + "] }}",
        "{{ [" + "long|title|upper|length, " * 150 + "] }}",
        "{{ [" + "long.title().upper()|length, " * 120 + "] }}",
        "{{ [" + "xs|unique|list|max, " * 150 + "] }}",
        "{{ [" + "many|sum(start=[])|length, " * 20 + "] }}",
        "{{ (long * 2).strip(other * 2) }}",
        "{{ (long * 2)|trim(other * 2) }}",
        "{{ many|sort(attribute=dots) }}",
        "{{ many|max(attribute=dots) }}",
        "{{ many|sum(attribute=dots) }}",
        "{% set a = texts + texts %}" + "{% set a = a + a %}" * 12 + "{{ a|sort|first|length }}",
        "{{ [" + "texts|max|length, " * 150 + "] }}",
        "{% if 2.5 in numbers %}a{% endif %}" * 120,
        "{% if 2.5 is in numbers %}a{% endif %}" * 120,
        "{{ 5|round(-1000000000) }}",
        "{{ x|round(1000000000, 'floor') }}",
        "{{ 1|round(100000000, method='ceil') }}",
    ],
)
def test_a_hostile_template_ends_soon(source: str) -> None:
    started = time.process_time()
    template = SANDBOX.compiled(source)
    compiled = time.process_time()

    with pytest.raises(TemplateError):
        SANDBOX.rendered(template, HOSTILE, Budget())

    assert time.process_time() - compiled < 10 * MAX_RENDER_S
    assert compiled - started < 3


def test_a_rendering_ends_by_the_clock() -> None:
    ticks = iter([0.0, 0.01, 0.02, 1.0])

    template = SANDBOX.compiled("{% for i in range(9) %}{{ i }}{% endfor %}")

    with pytest.raises(TemplateLimitError, match="longer than 50 ms"):
        SANDBOX.rendered(template, {}, Budget(lambda: next(ticks)))


def test_what_is_not_compared_is_not_charged() -> None:
    documents = [{"score": score, "text": "a" * 100_000} for score in range(40)]

    assert rendered("{{ (xs|sort(attribute='score')|last).score }}", xs=documents) == "39"
    with pytest.raises(TemplateLimitError, match="read more"):
        rendered("{{ (xs|sort(attribute='text')|last).score }}", xs=documents)


def test_the_longest_text_is_rendered() -> None:
    assert len(rendered("{{ x }}", x="a" * (MAX_CHARACTERS // 2))) == MAX_CHARACTERS // 2


def test_a_value_is_not_changed_by_a_template() -> None:
    value = {"items": [1, 2]}

    rendered("{% set x = value['items'] + [3] %}{{ x }}", value=value)

    assert value == {"items": [1, 2]}
