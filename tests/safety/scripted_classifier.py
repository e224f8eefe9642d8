"""A classifier whose scores follow from words of the text, and that misbehaves as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from router.openai.moderations import CATEGORIES
from safety.api import ClassifierUnavailableError, Scores


def scored(text: str) -> Scores:
    """HARM is violent, DOUBT may be, ATTACK is an injection, SUSPECT may be one."""
    violence = 0.97 if "HARM" in text else 0.7 if "DOUBT" in text else 0.01
    injection = 0.99 if "ATTACK" in text else 0.65 if "SUSPECT" in text else 0.02
    categories = dict.fromkeys(CATEGORIES, 0.01) | {"violence": violence}
    return Scores(categories, injection, violence > 0.5 or injection > 0.5)


@dataclass
class ScriptedClassifier:
    """``mode``: ``well``; ``dead`` raises; ``slow`` never answers; ``nonsense`` returns NaN; ``short`` leaves one out;
    ``broken`` raises an error that the port does not have. ``texts`` are all that it was asked about, ``urgent`` those
    of urgent calls."""

    mode: str = "well"
    version: str = "scripted-1"
    texts: list[str] = field(default_factory=list)
    urgent: list[str] = field(default_factory=list)

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        self.texts += texts
        self.urgent += texts if urgent else ()
        if self.mode == "dead":
            raise ClassifierUnavailableError("dead")
        if self.mode == "slow":
            await asyncio.Event().wait()
        if self.mode == "broken":
            raise RuntimeError("the prompt was: " + texts[0])
        found = [scored(text) for text in texts]
        if self.mode == "nonsense":
            return [Scores({"violence": float("nan")}, float("nan"), False) for _ in found]
        return found[1:] if self.mode == "short" else found
