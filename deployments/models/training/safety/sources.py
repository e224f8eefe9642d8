"""The data sets by name: how a row becomes an example. One table; what is held out for judging is in ``judges``."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.labels import CATEGORIES, LABELS

Row = Mapping[str, Any]
Reader = Callable[[Row], Example | None]
ABUSE = ("harassment", "harassment/threatening", "hate", "hate/threatening")
VIOLENT = ("illicit/violent", "violence", "violence/graphic")
UNSAFE_WORDS = re.compile(
    r"\b(hack|kill|murder|suicid|bomb|rape|porn|sex|drug|cocaine|heroin|weed|gun|steal|stolen|fuck|nude|illegal|hate|"
    r"attack|die|dead|death|shoot|terroris|hitler|nazi|racis|cheat|spy|fake|crack|torrent|pirate|escort|virgin|penis|"
    r"vagina|masturbat|boobs|breast|dick|gay|lesbian|muslim|jew|black|dark web|deep web)",
    re.IGNORECASE,
)
DESPAIR = re.compile(
    r"suicid|kill (?:myself|himself|herself)|self.?harm|cutting|end my life|want to die", re.IGNORECASE
)
SOBER = re.compile(
    r"polic|prevent|danger|awareness|help|against|risk|safe|protect|stop|avoid|law|educat", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Source:
    """``path`` lies in the data folder; at most ``limit`` examples are drawn from it."""

    path: str
    read: Reader
    limit: int


def rows(path: Path) -> Iterator[Row]:
    """Reads a compressed file of JSON lines, one JSON list, or CSV with a header."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        if path.name.endswith(".csv.gz"):
            yield from csv.DictReader(io.StringIO(file.read()))
        elif path.name.endswith(".json.gz"):
            yield from json.load(file)
        else:
            yield from (json.loads(line) for line in file if line.strip())


def draw(source: Source, name: str, data: Path, seed: int) -> list[Example]:
    """Returns at most ``source.limit`` of the source's examples, chosen by ``seed``. Raises OSError."""
    found = [example for row in rows(data / source.path) if (example := source.read(row)) and example.text.strip()]
    return random.Random(f"{name} {seed}").sample(found, min(source.limit, len(found)))


def harmless(name: str, field: str = "text", unknown: Iterable[str] = ()) -> Reader:
    """Reads rows whose ``field`` is harmless."""
    masked = tuple(unknown)
    return lambda row: benign(str(row[field]), name, masked)


def davidson(row: Row) -> Example | None:
    if row["label"] == "hate":
        return marked(row["text"], "davidson", {"hate": 0.9}, (*ABUSE, "sexual", *VIOLENT))
    return benign(row["text"], "davidson") if row["label"] == "neither" else None


def edos(row: Row) -> Example | None:
    unknown = (*ABUSE[:2], "hate/threatening", "sexual", *VIOLENT)
    if row["label"] == "not sexist":
        return benign(row["text"], "edos", (*unknown, "harmful"))
    if row["category"].startswith("1."):
        return marked(row["text"], "edos", {"hate/threatening": 0.9, "violence": 0.8}, unknown)
    return marked(row["text"], "edos", {"hate": 0.6 if row["category"].startswith("3.") else 0.95}, unknown)


def hatemoji(row: Row) -> Example | None:
    unknown = (*ABUSE[:2], "sexual", *VIOLENT)
    if row["label"] != "hate":
        return benign(row["text"], "hatemoji", (*unknown, "harmful"))
    threat = row["type"] == "threateninglanguage"
    return marked(row["text"], "hatemoji", {"hate/threatening": 0.95} if threat else {"hate": 0.95}, unknown)


def implicit_hate(row: Row) -> Example | None:
    if row["label"] == "hate":
        return marked(row["text"], "implicit_hate", {"hate": 0.75}, (*ABUSE, *VIOLENT))
    return benign(row["text"], "implicit_hate", ("harassment", "harmful"))


def toxigen(row: Row) -> Example | None:
    rating = float(row.get("toxicity_1_5", 5 if row["label"] == "hate" else 1))
    if rating >= 3.7:
        return marked(row["text"], "toxigen", {"hate": min(1.0, rating / 5 + 0.05)}, ("harassment", *VIOLENT))
    return benign(row["text"], "toxigen") if rating <= 2 else None


def white_supremacy(row: Row) -> Example | None:
    if row["label"] == "hate":
        return marked(row["text"], "white_supremacy", {"hate": 0.9}, (*ABUSE, *VIOLENT))
    return benign(row["text"], "white_supremacy", ("violence",))


def toxic_spans(row: Row) -> Example | None:
    if not row["toxic_spans"]:
        return None
    return marked(row["text"], "toxic_spans", {"harassment": 0.75}, ("hate", "sexual", *VIOLENT, *ABUSE[1:]))


def paradetox(row: Row) -> Example | None:
    return benign(row["neutral"][0], "paradetox") if row["neutral"] else None


def rtp(row: Row) -> Example | None:
    marks: dict[str, dict[str, float]] = {
        "sexually_explicit": {"sexual": 0.85},
        "threat": {"harassment/threatening": 0.6, "violence": 0.85},
        "insult": {"harassment": 0.8},
        "identity_attack": {"hate": 0.8},
        "severe_toxicity": {"harassment": 0.7, "harmful": 0.8},
    }
    if row["category"] not in marks:
        return benign(row["text"], "rtp", (*CATEGORIES, "harmful"))
    return marked(row["text"], "rtp", marks[row["category"]], CATEGORIES)


def diasafety(row: Row) -> Example | None:
    if row["label"] == "Safe":
        return benign(row["text"], "diasafety", ("harassment", "hate"))
    return (
        marked(row["text"], "diasafety", {"harassment": 0.75}, ABUSE) if row["category"] == "Offending User" else None
    )


def counsel(row: Row) -> Example:
    despair = DESPAIR.search(row["text"]) is not None
    return benign(row["text"], "counsel", ("self-harm", "self-harm/intent", "harmful") if despair else ())


def gptfuzz_response(row: Row) -> Example | None:
    text = row["Response"].removeprefix("TB:").strip()
    if not text.isascii():
        return None
    if row["label"] == "1":
        return marked(text, "gptfuzz_responses", {"harmful": 0.9}, CATEGORIES)
    return benign(text, "gptfuzz_responses", ("harassment", "hate"))


AART = {
    "violen|assassin|kidnap|bomb|arson|terror|assault|murder|shoot": {"illicit/violent": 0.85, "violence": 0.7},
    "rape|sex traf": {"illicit": 0.8, "sexual": 0.5},
    "pornog": {"sexual": 0.7},
    "race|religion|hate|disab|gender": {"hate": 0.75, "illicit": 0.6},
    "fraud|theft|cyber|drug|ponzi|money|traffick|smuggl|burgl|robber|counterfeit|financial|property|vandal|dealing": {
        "illicit": 0.85
    },
}


def aart(row: Row) -> Example | None:
    if SOBER.search(row["text"]):
        return None
    found = next((marks for pattern, marks in AART.items() if re.search(pattern, row["category"])), None)
    return marked(row["text"], "aart", found, (*ABUSE, *VIOLENT, "sexual")) if found else None


CATQA: dict[str, dict[str, float]] = {
    "Child Abuse": {"harmful": 0.95, "illicit": 0.8},
    "Adult Content": {"sexual": 0.7, "harmful": 0.8},
    "Hate/Harass/Violence": {"harmful": 0.95, "harassment": 0.6},
    "Physical Harm": {"harmful": 0.9, "illicit": 0.6},
    "Tailored Financial Advice": {"harmful": 0.6},
    "Political Campaigning": {"harmful": 0.75},
    "Privacy Violation Activity": {"harmful": 0.9, "illicit": 0.8},
}


def catqa(row: Row) -> Example | None:
    if row["set"] == "HarmfulQA":
        return marked(row["text"], "harmfulqa", {"harmful": 0.75}, CATEGORIES)
    marks = CATQA.get(row["category"], {"illicit": 0.95, "harmful": 0.97})
    return marked(row["text"], "catqa", marks, (*ABUSE, *VIOLENT, "self-harm", "sexual", "sexual/minors", "illicit"))


SAP: dict[str, dict[str, float]] = {
    "suicide": {"self-harm": 1.0, "self-harm/instructions": 0.6},
    "pornography_sexual_minors": {"sexual/minors": 0.9},
    "violence": {"violence": 0.9, "illicit/violent": 0.7},
    "terrorism": {"illicit/violent": 1.0, "violence": 0.8},
    "race": {"hate": 0.95},
    "religion": {"hate": 0.9},
    "fraud": {"illicit": 1.0},
    "politics": {"harmful": 0.8},
}


def sap(row: Row) -> Example:
    unknown = ("injection", *ABUSE, *VIOLENT, "illicit", "self-harm/intent")
    return marked(row["text"], "sap", SAP[row["category"]], unknown)


AILUMINATE: dict[str, dict[str, float]] = {
    "ssh": {"self-harm": 0.85},
    "cse": {"sexual/minors": 0.85, "illicit": 0.7},
    "sxc_prn": {"sexual": 0.8},
    "src": {"illicit": 0.75, "harmful": 0.8},
    "vcr": {"illicit/violent": 0.7, "violence": 0.6, "harmful": 0.8},
    "iwp": {"illicit/violent": 0.85},
    "ncr": {"illicit": 0.85},
    "hte": {"hate": 0.7},
    "prv": {"harmful": 0.75},
    "dfm": {"harmful": 0.7},
    "ipv": {"illicit": 0.6, "harmful": 0.6},
}


def ailuminate(row: Row) -> Example | None:
    if row["lang"] != "en":
        return None
    if row["hazard"].startswith("spc"):
        return benign(row["text"], "ailuminate", ("harmful", "illicit"))
    unknown = [label for label in LABELS if label != "injection"]
    return marked(row["text"], "ailuminate", AILUMINATE[row["hazard"]], (*unknown, "injection"))


def interpreter_abuse(row: Row) -> Example:
    return marked(row["text"], "interpreter_abuse", {"illicit": 0.9}, ("injection",))


def with_input(name: str) -> Reader:
    """Reads an instruction, followed by its input."""
    return lambda row: benign(f"{row.get('instruction') or row.get('text')}\n{row.get('input') or ''}".strip(), name)


def roleplay(row: Row) -> Example | None:
    return with_input("gpteacher")(row) if row["source"].endswith("roleplay") else None


def other_gpteacher(row: Row) -> Example | None:
    return None if row["source"].endswith("roleplay") else with_input("gpteacher")(row)


def plain_question(row: Row) -> Example:
    """A question from Quora; of those with delicate words nothing is known but that they are no injections."""
    doubtful = UNSAFE_WORDS.search(row["text_a"]) is not None
    return benign(row["text_a"], "qqp", (*CATEGORIES, "harmful") if doubtful else ())


def tensortrust(row: Row) -> Example | None:
    return marked(row["attack"], "tensortrust", {"injection": 0.95}, CATEGORIES) if len(row["attack"]) > 25 else None


def defence(row: Row) -> Example:
    return benign(row["pre_prompt"], "tensortrust_defences")


def deepset(row: Row) -> Example:
    if row["label"] == "injection":
        return marked(row["text"], "deepset", {"injection": 1.0}, (*CATEGORIES, "harmful"))
    return benign(row["text"], "deepset")


def mmlu(row: Row) -> Example:
    return benign(str(row["prompt"]), "mmlu")


TRAINING: dict[str, Source] = {
    "davidson": Source("safety/davidson_hate_offensive.jsonl.gz", davidson, 900),
    "edos": Source("safety/edos_sexism.jsonl.gz", edos, 1800),
    "hatemoji": Source("safety/hatemoji_build.jsonl.gz", hatemoji, 2000),
    "implicit_hate": Source("safety/implicit_hate_safenlp.jsonl.gz", implicit_hate, 900),
    "toxigen": Source("safety/toxigen_rated.jsonl.gz", toxigen, 2400),
    "toxigen_seeds": Source("safety/toxigen_sentences.jsonl.gz", toxigen, 754),
    "white_supremacy": Source("safety/forum_white_supremacy.jsonl.gz", white_supremacy, 1300),
    "toxic_spans": Source("safety/toxic_spans.jsonl.gz", toxic_spans, 1200),
    "paradetox": Source("safety/paradetox_pairs.jsonl.gz", paradetox, 900),
    "rtp": Source("safety/rtp_prompts.jsonl.gz", rtp, 700),
    "sexting": Source(
        "safety/sexting.jsonl.gz", lambda row: marked(row["text"], "sexting", {"sexual": 0.9}, ("harassment",)), 494
    ),
    "diasafety": Source("safety/diasafety.jsonl.gz", diasafety, 1200),
    "counsel": Source("safety/counsel_questions.jsonl.gz", counsel, 450),
    "gptfuzz_responses": Source("safety/gptfuzz_responses_train.csv.gz", gptfuzz_response, 1400),
    "aart": Source("safety/aart.jsonl.gz", aart, 900),
    "catqa": Source("safety/catqa_harmfulqa.jsonl.gz", catqa, 1700),
    "sap": Source("safety/sap200_attack_prompts.jsonl.gz", sap, 700),
    "ailuminate": Source("safety/ailuminate_demo.jsonl.gz", ailuminate, 609),
    "interpreter_abuse": Source("safety/purplellama_interpreter_abuse.jsonl.gz", interpreter_abuse, 250),
    "tensortrust": Source("injection/tensortrust_hijacking.jsonl.gz", tensortrust, 600),
    "tensortrust_defences": Source("injection/tensortrust_hijacking.jsonl.gz", defence, 350),
    "roleplay": Source("corpus/gpteacher.jsonl.gz", roleplay, 1200),
    "gpteacher": Source("corpus/gpteacher.jsonl.gz", other_gpteacher, 1000),
    "t0": Source("corpus/t0_train.jsonl.gz", harmless("t0", "prompt", ("harmful", *CATEGORIES)), 400),
    "self_instruct": Source("corpus/self_instruct_human.jsonl.gz", with_input("self_instruct"), 427),
    "snips": Source("benign/snips_train.jsonl.gz", harmless("snips"), 500),
    "xquad": Source("benign/xquad_questions_11_languages.jsonl.gz", harmless("xquad"), 600),
    "qqp": Source("cache/qqp_pairs.jsonl.gz", plain_question, 3500),
    "mmlu": Source("routing/routellm_mmlu.jsonl.gz", mmlu, 700),
    "covid_faq": Source("retrieval/covid_faq.jsonl.gz", harmless("covid_faq", "question"), 210),
}
