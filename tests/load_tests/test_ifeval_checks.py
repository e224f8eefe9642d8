"""Each of IFEval's 25 checks passes what follows its instruction and fails what does not."""

from __future__ import annotations

from typing import Any

import pytest

from load_tests.quality.ifeval.instruction import CHECKS, Instruction, variants
from load_tests.quality.ifeval.text import paragraphs, sentences, words

Case = tuple[str, dict[str, Any], list[str], list[str]]
"""Id, arguments, answers that follow, answers that do not."""

LENGTH: list[Case] = [
    (
        "length_constraints:number_words",
        {"relation": "at least", "num_words": 4},
        ["one two three four", "one, two,\n\nthree - four!"],
        ["one two three", "one two three …"],
    ),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 4}, ["a b c"], ["a b c d"]),
    (
        "length_constraints:number_sentences",
        {"relation": "at least", "num_sentences": 2},
        ["It rains. I stay.", "Really?! Yes"],
        ["It rains at 3.5 mm, says Mr. Hill", "Eggs\nMilk\nBread"],
    ),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 2}, ["Hi."], ["Hi. Ho."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["first\n***\nsecond", "first *** second", "***\nfirst\n\nstill first\n* * *\nsecond\n***"],
        ["first\n\nsecond", "first", "a\n***\n\n***\nb", "a\n***\nb\n***\nc", "a ****** b", "a ***bold*** b"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        ["Oak.\n\nElm trees grow.", 'Oak.\n\n\n  "Elm," he said.', "Oak.\n \n**elm** it is"],
        ["Elm.\n\nOak.", "Oak.\nElm.", "Oak.\n\nElms grow.", "Oak.\n\nElm.\n\nAsh.", "Oak.\n\nThe elm."],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"},
        [],
        ["a"],
    ),
]

KEYWORDS: list[Case] = [
    (
        "keywords:existence",
        {"keywords": ["mom", "Mother"]},
        ["My MOM is a mother.", "Moms and mothers"],
        ["My mom.", "my mo-m is a mother"],
    ),
    (
        "keywords:frequency",
        {"relation": "at least", "keyword": "war", "frequency": 2},
        ["War! war.", "wars of the Warring States"],
        ["war and peace", "w a r, w a r"],
    ),
    ("keywords:frequency", {"relation": "less than", "keyword": "war", "frequency": 1}, ["peace"], ["War"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "le"]},
        ["A rocket on the table.", "stone"],
        ["ROCK!", "I like rock, too", "Monsieur Le"],
    ),
    (
        "keywords:letter_frequency",
        {"let_relation": "at least", "letter": "O", "let_frequency": 3},
        ["oOo", "So good"],
        ["o, oh", "zero"],
    ),
    ("keywords:letter_frequency", {"let_relation": "at least", "letter": "#", "let_frequency": 2}, ["#a #b"], ["#a"]),
    ("keywords:letter_frequency", {"let_relation": "less than", "letter": "c", "let_frequency": 1}, ["dog"], ["Cat"]),
]

FORMAT: list[Case] = [
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. Who knows?"],
        ["Yes.", "my answer is yes.", "My answer is yes. My answer is no."],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "Here:\n  - one\n- **two**\n---", "* one *bold*\n\n* two\n* * *"],
        ["* one", "* one\n* two\n* three", "*one*\n*two*", "1. one\n2. two", "one * two * three"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two words*", "**one**, **two**", "* *one*\n* *two*", "*a* b *c* d *e*"],
        ["*one* two", "* one\n* two\n* three", "****", "* * * *", "*one\ntwo* three"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "**Section 1:** a **Section 2:** b", "Section 1 a Section 2 b Section 3 c"],
        ["Section 1\na", "SECTION 1\na\nSECTION 2\nb", "Section 1 a\nSection 1 b", "Section a\nSection b"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Joy>>\nText", "Text <<poem of joy>>"],
        ["<Joy>", "<<>>", "<< >>", "<<Joy\nof life>>", "Joy"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', "\n[1, 2]\n", '```json\n{"a": [1]}\n```', "```\n{}\n```"],
        ['Here: {"a": 1}', "{'a': 1}", '"a"', "5", '{"a": 1', '```json\n{"a": 1}\n```\nDone.', "[" * 100_000],
    ),
]

CONTENT: list[Case] = [
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], of [your address]", "[a][b][c]"],
        ["Dear [name]", "[] [ ]", "(name) (address)", "[na\nme] [address]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S I love you", "Bye.\n\nP.P.S. Call me.", "Bye. p. p. s.: call"],
        ["Bye.\nP.S. Call me.", "Bye.\nP.P.S.", "apps are here"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. Call me.", "With love. PS: Call me.", "**P.S.** Call me"],
        ["Bye.", "P.P.S. Call me.", "two tips and caps follow"],
    ),
]

CASE: list[Case] = [
    (
        "change_case:english_capital",
        {},
        ["THIS IS A SHORT ANSWER, IN ENGLISH.", "THE 3 DOGS RAN HOME AND SLEPT."],
        ["THIS IS a SHORT ANSWER.", "This is an answer.", "DIES IST EINE KURZE ANTWORT AUF DEUTSCH.", "123"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is a short answer, in english.", "the 3 dogs ran home and slept."],
        ["This is a short answer.", "dies ist eine kurze antwort auf deutsch.", "123"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        ["BUY it NOW", "I say A"],
        ["BUY it", "Buy It Now", "12 34"],
    ),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 2}, ["BUY"], ["B C"]),
]

SHAPE: list[Case] = [
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a  poem.\nNow!"},
        ["Write a poem. Now!\n\nRoses are red", "write a poem. now!"],
        ["Sure: Write a poem. Now!", "Write a poem!", "Roses are red"],
    ),
    (
        "combination:two_responses",
        {},
        ["One.\n******\nTwo.", "One. ****** Two. ******", "******\nOne.\n*******\nTwo."],
        ["One.", "One.\n***\nTwo.", "Same.\n******\nSame.", "1\n******\n2\n******\n3", "1\n******\n\n******\n2"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Hope you agree."},
        ["So it is. Hope you agree.", 'So. hope you agree."\n'],
        ["Hope you agree. Bye!", "Hope you agree", "I hope so."],
    ),
    (
        "startend:quotation",
        {},
        ['"All of it."', '  "Some "inner" words."\n', "“All of it.”"],
        ['"', '""', "'All.'", 'He said "yes"', '"Yes", he said.', "All"],
    ),
    ("punctuation:no_comma", {}, ["No pause here; none."], ["A, b.", "a，b", "نعم، لا"]),
]

LANGUAGE: list[Case] = [
    (
        "language:response_language",
        {"language": code},
        [said],
        ["This is an answer in plain English, whatever was asked for.", "12345 !!!"],
    )
    for code, said in {
        "ar": "هذا جواب قصير باللغة العربية عن الطقس.",
        "bg": "Това е кратък отговор на български език.",
        "bn": "এটি বাংলা ভাষায় একটি ছোট উত্তর।",
        "de": "Das ist eine kurze Antwort in deutscher Sprache.",
        "fa": "این یک پاسخ کوتاه به زبان فارسی است.",
        "fi": "Tämä on lyhyt vastaus suomen kielellä.",
        "gu": "આ ગુજરાતી ભાષામાં ટૂંકો જવાબ છે.",
        "hi": "यह हिन्दी भाषा में एक छोटा उत्तर है।",
        "it": "Questa è una breve risposta in lingua italiana.",
        "kn": "ಇದು ಕನ್ನಡ ಭಾಷೆಯಲ್ಲಿ ಒಂದು ಸಣ್ಣ ಉತ್ತರ.",
        "ko": "이것은 한국어로 쓴 짧은 대답입니다.",
        "mr": "हे मराठी भाषेतील एक छोटे उत्तर आहे.",
        "ne": "यो नेपाली भाषामा लेखिएको छोटो उत्तर हो।",
        "pa": "ਇਹ ਪੰਜਾਬੀ ਭਾਸ਼ਾ ਵਿੱਚ ਇੱਕ ਛੋਟਾ ਜਵਾਬ ਹੈ।",
        "pt": "Esta é uma resposta curta em língua portuguesa, não em inglês.",
        "ru": "Это короткий ответ на русском языке.",
        "sw": "Hili ni jibu fupi kwa lugha ya Kiswahili.",
        "ta": "இது தமிழ் மொழியில் ஒரு சிறிய பதில்.",
        "te": "ఇది తెలుగు భాషలో ఒక చిన్న సమాధానం.",
        "th": "นี่คือคำตอบสั้น ๆ เป็นภาษาไทย",
        "ur": "یہ اردو زبان میں ایک مختصر جواب ہے۔",
        "vi": "Đây là một câu trả lời ngắn bằng tiếng Việt.",
    }.items()
]

CASES = [*LENGTH, *KEYWORDS, *FORMAT, *CONTENT, *CASE, *SHAPE, *LANGUAGE]


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_a_check_passes_what_follows_its_instruction_and_nothing_else(
    name: str, arguments: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    instruction = Instruction(name, arguments)

    assert [answer for answer in good if not instruction.followed(answer)] == []
    assert [answer for answer in bad if instruction.followed(answer)] == []


def test_every_check_has_answers_that_pass_and_that_fail() -> None:
    assert {name for name, _, good, _ in CASES if good} == set(CHECKS)
    assert {name for name, _, _, bad in CASES if bad} == set(CHECKS)
    assert len(CHECKS) == 25


@pytest.mark.parametrize("answer", ["", " \n"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("punctuation:no_comma", {}), ("keywords:forbidden_words", {"forbidden_words": ["a"]})],
)
def test_an_empty_answer_follows_nothing(name: str, arguments: dict[str, Any], answer: str) -> None:
    assert not Instruction(name, arguments).followed(answer)
    assert not Instruction(name, arguments).loosely_followed(answer)


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("punctuation:no_dash", {}, "no check is called"),
        ("punctuation:no_comma", {"number": 3}, "unexpected keyword argument"),
        ("length_constraints:number_words", {"relation": "at least"}, "missing a required argument"),
        (
            "length_constraints:number_words",
            {"relation": "around", "num_words": 3},
            "relations are at least",
        ),
        ("keywords:letter_frequency", {"let_relation": "at least", "letter": "ab", "let_frequency": 1}, "one letter"),
        ("language:response_language", {"language": "xx"}, "languages are"),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_refused(name: str, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Instruction(name, arguments)


@pytest.mark.parametrize(
    ("answer", "name", "arguments"),
    [
        ("Here you are:\n{}", "detectable_format:json_format", {}),
        ("**My** answer is yes.", "detectable_format:constrained_response", {}),
        ("Sure, here it is:\nno pause", "punctuation:no_comma", {}),
        ("no pause\nAnything else, friend?", "punctuation:no_comma", {}),
        ('Sure:\n"All of it."\nBye!', "startend:quotation", {}),
        ("Sure:\n*The end.*\nBye", "startend:end_checker", {"end_phrase": "the end."}),
    ],
)
def test_an_introduction_a_farewell_and_asterisks_are_forgiven_loosely(
    answer: str, name: str, arguments: dict[str, Any]
) -> None:
    instruction = Instruction(name, arguments)

    assert not instruction.followed(answer)
    assert instruction.loosely_followed(answer)


def test_there_are_eight_variants_of_an_answer_and_the_first_is_itself() -> None:
    assert variants("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("no stop", 1),
        ("One. Two! Three? Four", 4),
        ("One... two.", 2),
        ("Wait … what?", 2),
        ("He paid 3.50 at 5 p.m. and left.", 1),
        ("Dr. A. B. Smith met Mrs. Jones, i.e. his sister.", 1),
        ("I met him, and so did I. Then we left.", 2),
        ('"Come." "No." (Why?) He went.', 4),
        ("1. Eggs\n2. Milk\n3. Bread", 1),
        ("1. Buy eggs.\n2. Buy milk.", 2),
        ("I was born in 1990. It was cold.", 2),
        ("It is e.g. red, etc. Then it ends.", 1),
        ("यह एक है। यह दो है।", 2),
        ("一。二。三！", 3),
        ("**Bold.** Plain.", 2),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, count: int) -> None:
    assert sentences(text) == count


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("Don't — 3.5 well-known!") == ["Don", "t", "3", "5", "well", "known"]


def test_paragraphs_stand_between_blank_lines() -> None:
    assert paragraphs("\n\na\nb\n \n\n c \n") == ["a\nb", "c"]
