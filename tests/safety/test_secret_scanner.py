"""Secrets in texts and streams."""

from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.api import Action, Origin, Passage, Span
from safety.patterns.scanner import find, joined, starts
from safety.redaction import redact
from safety.secrets.bounded_pattern import bounded, gate_of
from safety.secrets.check import SecretCheck
from safety.secrets.detect_secrets_plugins import kind_of, plugin_recognisers
from safety.secrets.kinds import KINDS, RECOGNISERS, SecretScanner, recognisers_of

LETTERS = "Ab3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3gH5jK7mN9pQ1sT3vW5yZ7"
LOWER = LETTERS.lower()
HEADER = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "typ": "JWT"}).encode()).decode().rstrip("=")

VALUES = {
    "MANTA_API_KEY": "sk-manta-" + LOWER[:12] + "-" + LETTERS[:43],
    "OPENAI_TOKEN": "sk-proj-" + LETTERS[:40] + "T3BlbkFJ" + LETTERS[:20],
    "ANTHROPIC_API_KEY": "sk-ant-api03-" + LETTERS * 2,
    "GOOGLE_API_KEY": "AIza" + LETTERS[:35],
    "AWS_ACCESS_KEY": "AKIA" + LETTERS.upper()[:16],
    "GITHUB_TOKEN": "ghp_" + LETTERS[:36],
    "GITLAB_TOKEN": "glpat-" + LETTERS[:20],
    "SLACK_TOKEN": "xoxb-123456789012-123456789012-" + LETTERS[:24],
    "STRIPE_ACCESS_KEY": "sk_live_" + LETTERS[:24],
    "SENDGRID_API_KEY": "SG." + LETTERS[:22] + "." + LETTERS[:43],
    "HUGGING_FACE_TOKEN": "hf_" + LETTERS[:34],
    "PYPI_TOKEN": "pypi-AgEIcHlwaS5vcmc" + LETTERS * 3,
    "TWILIO_API_KEY": "SK" + (LOWER)[:32],
    "JSON_WEB_TOKEN": f"{HEADER}.{LETTERS * 3}.{LETTERS}",
    "TELEGRAM_BOT_TOKEN": "1234567890:" + LETTERS[:35],
}
"""Made up, of the form of each kind."""

KEY_BODY = "\n".join([LETTERS + LETTERS[:10]] * 20)
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_BODY}\n-----END RSA PRIVATE KEY-----"
PGP = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{KEY_BODY}\n-----END PGP PRIVATE KEY BLOCK-----"
PUTTY = f"PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 2\n{KEY_BODY}\nPrivate-MAC: {'0123456789' * 4}"

HARMLESS = [
    'if line.startswith("-----BEGIN RSA PRIVATE KEY-----"):\n    read_key(line)',
    "token = tokenizer.next_token(index1)\nsecret = get_secret_from_the_vault_of_12_keys(name)",
    'password = "hunter"; api_key = os.environ["API_KEY"]; token: "your-token-here-1234567890"',
    "sk-circle-fade-dot and sk-learn-2024-release-notes-for-everyone",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "eyJust a word.with dots. The key: value pairs of the secret garden",
    "SKILLS AND ACCESS; AIza is short; the task-manta is",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
]


def scan(text: str, cuts: list[int]) -> tuple[tuple[Span, ...], list[int]]:
    """The spans that a scanner finds in a text cut into pieces, and how much it holds back after each."""
    scanner, found, held, settled = SecretScanner(), list[Span](), [], 0
    for index, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(text)], strict=True)):
        result = scanner.push(text[start:end], final=index == len(cuts))
        assert all(span.start >= settled for span in result.found)
        assert result.settled >= settled
        settled = result.settled
        found += result.found
        held.append(end - settled)
    assert settled == len(text)
    return tuple(found), held


@pytest.mark.parametrize(("kind", "secret"), VALUES.items())
@pytest.mark.parametrize("around", ["{}", "Use {}.", 'key = "{}"', '{{"a": "\\n{}\\n"}}', "x={}&y=1"])
def test_a_secret_is_found_exactly(kind: str, secret: str, around: str) -> None:
    text = around.format(secret)
    start = text.index(secret)

    assert find(RECOGNISERS, text) == (Span(start, start + len(secret), kind),)


@pytest.mark.parametrize("key", [KEY, KEY.replace("\n", "\\n"), PGP, PUTTY], ids=["PEM", "escaped", "PGP", "PuTTY"])
def test_a_private_key_is_found_to_its_last_line(key: str) -> None:
    text = f"Here:\n{key}\nThat was it."

    assert redact(text, find(RECOGNISERS, text)) == "Here:\n<PRIVATE_KEY>\nThat was it."


def test_a_private_key_without_a_last_line_goes_to_the_end() -> None:
    text = f"Here:\n{KEY[:-80]}"

    assert redact(text, find(RECOGNISERS, text)) == "Here:\n<PRIVATE_KEY>"


@pytest.mark.parametrize("text", HARMLESS)
def test_a_harmless_text_has_none(text: str) -> None:
    assert not find(RECOGNISERS, text)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f'api_key = "{LETTERS[:32]}"', LETTERS[:32]),
        (f"AWS_SECRET_ACCESS_KEY={LETTERS[:40]}\n", LETTERS[:40]),
        ('"client_secret": "9f86d081884c7d659a2feaa0c55ad015"', "9f86d081884c7d659a2feaa0c55ad015"),
        ("db_password: 'Tr0ub4dor&3x'", "Tr0ub4dor&3x"),
        ("postgres://user:s3cret@db.example.com/x", "s3cret"),
    ],
)
def test_only_the_value_of_an_assignment_is_a_secret(text: str, secret: str) -> None:
    assert [text[span.start : span.end] for span in find(RECOGNISERS, text)] == [secret]


@pytest.mark.parametrize("kind", ["GITHUB_TOKEN", "JSON_WEB_TOKEN", "OPENAI_TOKEN", "PYPI_TOKEN"])
def test_all_of_a_very_long_token_is_redacted(kind: str) -> None:
    text = f"Take {VALUES[kind]}{'aB3' * 1400} now"
    found, held = scan(text, list(range(4, len(text), 4)))

    assert redact(text, found) == f"Take <{kind}> now"
    assert max(held) <= 1100


PARTS = st.one_of(
    st.sampled_from([*VALUES.values(), KEY, KEY[:200], PGP, *HARMLESS]),
    st.text("aA1.-_=:\"'/sk \u200b", max_size=10),
    st.sampled_from([" ", "\n", "key=", "token: '", "-----BEGIN ", "-----END X-----"]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PARTS, max_size=6).map("".join), st.data())
def test_any_cut_finds_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    whole, _ = scan(text, [])

    assert scan(text, cuts)[0] == whole
    assert scan(text, list(range(7, len(text), 7)))[0] == whole
    assert joined(whole) == find(RECOGNISERS, text)


@pytest.mark.parametrize("kind", VALUES)
def test_values_without_a_space_between_them_are_found_alike_wherever_they_are_cut(kind: str) -> None:
    """The second may be the rest of the first as well as a value of its own, of the same length."""
    for other in VALUES.values():
        text = VALUES[kind] + other
        assert scan(text, list(range(7, len(text), 7)))[0] == scan(text, [])[0]


def test_prose_is_held_by_a_word() -> None:
    text = "The quick brown fox jumps over the lazy dog, and keeps a secret token in the garden at night. " * 4
    _, held = scan(text, list(range(3, len(text), 3)))

    assert sorted(held)[len(held) // 2] <= 8
    assert max(held) <= 32


HOSTILE = [
    "a",
    "//",
    "://a:",
    "eyJ",
    "xoxb-1-",
    "1-",
    "-----BEGIN ",
    "key=",
    "token ",
    "aws",
    "sk-",
    "SG.",
    "PuTTY",
    "0a",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        begin = time.process_time()
        find(RECOGNISERS, unit * (length // len(unit)))
        return time.process_time() - begin

    short = seconds(4000)

    assert seconds(16_000) < 8 * short + 0.1


@pytest.mark.parametrize(
    ("pattern", "safe"),
    [
        ("a+b*", "a{1,100}b{0,100}"),
        (r"[+*]{3,}\+\*", r"[+*]{3,103}\+\*"),
        ("(?:ab)+?c{2}", "(?:ab){1,8}?c{2}"),
    ],
)
def test_every_quantifier_gets_a_bound(pattern: str, safe: str) -> None:
    assert bounded(pattern) == safe


def test_the_plugins_of_detect_secrets_are_used() -> None:
    kinds = {recogniser.kind for recogniser in plugin_recognisers()}

    assert {"AWS_ACCESS_KEY", "SLACK_TOKEN", "GITLAB_TOKEN", "AZURE_STORAGE_ACCOUNT_ACCESS_KEY"} <= kinds <= KINDS
    assert kind_of("Public IP (ipv4)") == "PUBLIC_IP_IPV4"


def test_a_gate_has_the_characters_that_can_begin_a_match() -> None:
    gate = starts("", (gate_of("(?i:ab)c|x"),))

    assert [match.start() for match in gate.finditer("abc ABc xyz ab")] == [0, 4, 8, 12]


async def test_a_check_reports_the_passages_with_findings() -> None:
    texts = ["nothing", f"Use {VALUES['GITHUB_TOKEN']}"]

    (verdict,) = await SecretCheck(Action.BLOCK).check([Passage(text, Origin.USER) for text in texts])

    assert (verdict.passage, verdict.action, verdict.spans) == (1, Action.BLOCK, (Span(4, 44, "GITHUB_TOKEN"),))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="DIARY"):
        recognisers_of({"DIARY"})
