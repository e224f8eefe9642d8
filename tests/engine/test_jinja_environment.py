"""Templates write what they write under transformers, and reach nothing that they should not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from engine.jinja_environment import environment, messages_for_template
from tests.engine.models import make_tokenizer

TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "a <b> “é”", "name": None},
    {"role": "assistant", "content": "c", "reasoning_content": "because"},
    {"role": "assistant", "content": "d", "reasoning": "so"},
]
TEMPLATES = {
    "white space": "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n",
    "JSON": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=1) }}",
    "reasoning": "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}|{{ m.keys() | list }}{% endfor %}",
    "loops": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": "{% set n = namespace(self=1, b=2) %}{% set n.b = 3 %}{{ n.self }}{{ n.b }}",
    "dict": "{{ dict(a=1) }}{{ dict.fromkeys(['x', 'y'], 0) }}{{ dict([('k', 'v')]) }}",
    "tokens": "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ unknown is defined }}",
    "time": "{{ strftime_now('%Y-%m-%d') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_writes_what_it_writes_under_transformers(name: str) -> None:
    hub = copy.deepcopy(make_tokenizer())
    hub.chat_template = TEMPLATES[name]
    expected = hub.apply_chat_template(copy.deepcopy(TURNS), tokenize=False)

    variables = {**hub.special_tokens_map, "tools": None, "documents": None, "add_generation_prompt": False}
    found = environment().from_string(TEMPLATES[name]).render(**variables, messages=messages_for_template(TURNS))

    assert found == expected


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ raise_exception('no') }}", TemplateError),
        ("{{ messages.append(1) }}", SecurityError),
        ("{{ ''.__class__.__mro__ }}", SecurityError),
        ("{{ dict.__call__.__globals__ }}", SecurityError),
        ("{% set n = namespace(_a=1) %}", SecurityError),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", SecurityError),
    ],
)
def test_a_template_is_refused_what_may_harm(template: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        environment().from_string(template).render(messages=[])
