"""Open questions in several languages, and what may follow them. Nothing is fitted to them."""

from __future__ import annotations

import json
from pathlib import Path

QUESTIONS: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("questions_by_language.json").read_text(encoding="utf-8")
)
EVERY = [(language, question) for language, questions in QUESTIONS.items() for question in questions]
OPEN: list[str] = json.loads(Path(__file__).with_name("open_questions.json").read_text(encoding="utf-8"))
# "Thanks!" is not among them: a tier for tasks answers it.
FOLLOW_UPS = (
    *("And why?", "Give me an example.", "Shorter, please.", "In French?", "Tell me more."),
    *("What makes you say so?", "Say that in other words.", "Any drawbacks?", "Could you be more specific?"),
    *("Et sinon ?", "Cuéntame más.", "Erzähl mehr davon.", "Расскажи подробнее.", "Dimmi di più."),
    *(
        "说得更详细一些",
        "もう少し詳しく教えて",
        "더 자세히 말해 줘",
        "اشرح أكثر من فضلك",
        "और बताओ",
        "ขออีกตัวอย่าง",
    ),
)
