"""``PairJudgement``: whether the stored answer to one question was right for another, and its form in Redis. Pure.

It has no texts: the pair is named by a digest.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import NamedTuple

from router.ports.answer_cache import HitJudge


class PairJudgement(NamedTuple):
    """Whether the stored answer to one question was right for another. ``score`` is that of the scorer named by
    ``version``, ``pair`` the ``pair_digest`` of the questions; "": not known. The others are as in ``HitFeedback``."""

    version: str
    wrong: bool
    judge: HitJudge
    score: float
    pair: str = ""
    weight: float = 1.0
    who: str = ""


def pair_digest(partition: str, one: str, other: str) -> str:
    """Returns a digest of a pair of questions of a partition, 128 bits in hexadecimal. It does not depend on the order
    of the two questions."""
    digest = hashlib.blake2b(partition.encode(), digest_size=16)
    for text in sorted((one, other)):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def encode_judgement(judgement: PairJudgement) -> str:
    """Returns ``judgement`` as JSON."""
    return json.dumps({**judgement._asdict(), "judge": judgement.judge.value}, separators=(",", ":"))


def decode_judgement(document: bytes) -> PairJudgement | None:
    """Returns the judgement in ``document``, which ``encode_judgement`` has written; None if it cannot be read."""
    try:
        members = json.loads(document)
        score, weight = float(members["score"]), float(members["weight"])
        found = bool(members["wrong"]), HitJudge(members["judge"]), score
        judgement = PairJudgement(str(members["version"]), *found, str(members["pair"]), weight, str(members["who"]))
    except (ValueError, TypeError, KeyError):
        return None
    return judgement if 0 < weight < math.inf and math.isfinite(score) else None
