"""What only the regression of open requests is fitted to: tasks stay tasks, and nothing that judges is among it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.routing.answers import key
from deployments.models.training.routing.any_words import TAUGHT, Vocabulary, with_any_words
from deployments.models.training.routing.as_typed import as_typed
from deployments.models.training.routing.bracketed import with_brackets
from deployments.models.training.routing.follow_ups import follow_ups
from deployments.models.training.routing.open_prompts import OPEN
from deployments.models.training.routing.recognition import LANGUAGES, PEOPLE_WRITE, TEXTS, draw_recognised
from deployments.models.training.routing.requests import Requests
from load_tests.quality.item import read_held_out
from load_tests.quality.options import HELD_OUT
from tests.deployments.questions import EVERY, FOLLOW_UPS
from tests.deployments.questions import OPEN as ASKED

WRITTEN = Vocabulary(("quasar", "treaty"), ("Zanzibar",))


def said(task: Task) -> str:
    return task.turns[-1].content


class TestAnyWords:
    def test_names_and_things_are_exchanged_and_the_request_stays(self) -> None:
        task = Task("transformation", 1, ask("Sort these words: apple, river, moon. Ada asks, ada waits."), "")

        changed = [said(each) for each in with_any_words([task] * 50, WRITTEN, 0)]

        pattern = r"Sort these words: (\w+), (\w+), (\w+)\. (Ada|Zanzibar) asks, (ada|quasar|treaty) waits\."
        assert all(re.fullmatch(pattern, text) for text in changed)
        assert {"quasar", "treaty", "Zanzibar"} <= {word for text in changed for word in re.findall(r"\w+", text)}

    def test_a_word_becomes_the_same_each_time(self) -> None:
        task = Task("format", 1, ask("apple apple apple"), "")
        assert all(len(set(said(each).split())) == 1 for each in with_any_words([task] * 20, WRITTEN, 0))

    def test_what_has_none_is_left_out(self) -> None:
        assert with_any_words([Task("arithmetic", 1, ask("What is 2 + 3?"), "5")], WRITTEN, 0) == []

    def test_the_vocabulary_is_of_usual_words_that_the_curriculum_has_not(self) -> None:
        words = Vocabulary.of(["The quasar met London in Zanzibar or NASA", "A quasar near Zanzibar, a NASA comet"])

        assert words == Vocabulary(("quasar",), ("Zanzibar",))
        assert "London" in TAUGHT


class TestAsTyped:
    TASK = Task("format", 1, ask("Say the word River\nand nothing else."), "River")

    def test_every_request_comes_in_another_way_and_is_known_by_its_family(self) -> None:
        typed = as_typed([self.TASK] * 60, 0)

        assert typed == as_typed([self.TASK] * 60, 0) != as_typed([self.TASK] * 60, 1)
        assert {"Say the word River\nand nothing else", "and nothing else.\nSay the word River"} <= set(
            map(said, typed)
        )
        assert any(said(each).islower() for each in typed)
        assert {tuple(sorted(re.findall(r"\w+", said(each).lower()))) for each in typed} == {
            ("and", "else", "nothing", "river", "say", "the", "word")
        }
        assert {(each.family, each.answer) for each in typed} == {("format", "River")}

    @pytest.mark.parametrize("text", ["", "Why?", "\n"])
    def test_short_text_stays_text(self, text: str) -> None:
        typed = as_typed([Task(OPEN, 1, ask(text), "")] * 20, 0)
        assert all(len(said(each)) <= max(len(text), 1) for each in typed)


class TestBrackets:
    def test_the_first_sum_is_put_in_brackets(self) -> None:
        plain = Task("arithmetic", 1, ask("What is 34 + 57 - 26?"), "65")
        (changed,) = with_brackets([plain, Task("format", 1, ask("Say: 7"), "7")], 0)
        assert re.fullmatch(r"What is \(34 \+ 57\)( [-+*] \d+)? - 26\?", said(changed))

    def test_parts_of_longer_numbers_are_no_sum(self) -> None:
        assert with_brackets([Task("arithmetic", 1, ask("Is 1.5 + 2.25 more than 3?"), "yes")], 0) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files like the public ones, with as many texts as are drawn."""
    folder = tmp_path_factory.mktemp("data")
    questions = [{PEOPLE_WRITE[1]: f"Why do quasars shine near planet Zanzibar {number}?"} for number in range(9)]
    files = {PEOPLE_WRITE[0]: questions}
    for name, field, count in (LANGUAGES, TEXTS):
        files[name] = [{field: f"¿Por qué brilla la estrella número {number}?"} for number in range(count)]
    for name, rows in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with gzip.open(folder / name, "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


class TestAllOfIt:
    def test_it_is_the_same_for_a_seed_and_has_what_the_tiers_were_asked(self, data: Path) -> None:
        fitted = list(draw_tasks(30, "fitted"))
        opened = [Task(OPEN, 1, ask("Why is the sea blue?"), "")]
        requests = Requests(fitted, opened, [], {})

        shown = draw_recognised(requests, data, 3)

        assert shown.tasks[:30] == fitted
        assert shown.opened[0] == opened[0]
        assert {task.family for task in shown.opened} == {OPEN}
        assert OPEN not in {task.family for task in shown.tasks}
        assert draw_recognised(requests, data, 3) == shown

    def test_no_single_question_is_in_the_held_out_set(self, data: Path) -> None:
        held_out = {item.messages[0].content for item in read_held_out(HELD_OUT).items if len(item.messages) == 1}
        shown = draw_recognised(Requests([], [], [], {}), data, 0)
        exact = [said(task) for task in shown.tasks if len(task.turns) == 1]
        assert len(exact) > 20_000
        assert not held_out & set(exact)

    def test_too_few_texts_are_refused(self, data: Path, tmp_path: Path) -> None:
        for name in (PEOPLE_WRITE[0], LANGUAGES[0], TEXTS[0]):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes((data / name).read_bytes())
        with gzip.open(tmp_path / TEXTS[0], "wt", encoding="utf-8") as lines:
            lines.write(json.dumps({TEXTS[1]: "one"}) + "\n")
        with pytest.raises(ValueError, match="usable texts"):
            draw_recognised(Requests([], [], [], {}), tmp_path, 0)

    def test_nothing_written_for_a_test_is_fitted_to(self) -> None:
        fitted = {said(task).casefold().rstrip("?.!。 ") for task in follow_ups()}
        written = [*FOLLOW_UPS, *ASKED, *(question for _, question in EVERY)]
        assert not [text for text in written if text.casefold().rstrip("?.!。 ") in fitted]
        assert len({key(task) for task in follow_ups()}) > 150
