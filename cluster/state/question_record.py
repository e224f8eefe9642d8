"""``QuestionRecord``: the question of a stored answer with its vector, and its encoding in Redis. Pure.

A record is a checksum, a header of fixed size, the partition, the question and the vector in float16. The checksum
covers tenant and id too. Bytes that were cut off, altered, written by another release or stored under another id are
not accepted as a record.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
HEADER = struct.Struct("<BqqQHHI")  # format, created, expires, model, dimensions, bytes of partition and of question
CHECKSUM_BYTES = 8
UTF8 = ("utf-8", "surrogatepass")  # a question may have half of a surrogate pair


class PoisonedQuestionError(Exception):
    """The stored bytes are no valid record of this tenant and id."""


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """The question that the entry ``id`` answers. ``model`` is the ``model_digest`` of the embedder that made
    ``vector``, float32 [dimensions] of length 1. Times are wall times in milliseconds since the epoch."""

    tenant: str
    id: str
    partition: str
    question: str
    created_ms: int
    expires_ms: int
    model: int
    vector: NDArray[np.float32]


def model_digest(model: str) -> int:
    """Returns a 64-bit digest of an embedder's model ``name@version``. Vectors of different models must not be
    compared."""
    return int.from_bytes(hashlib.blake2b(model.encode(), digest_size=8).digest(), "little")


def encode_question(record: QuestionRecord) -> bytes:
    """Returns ``record`` in its stored form: 768 bytes for a vector of 384 dimensions, and about 110 bytes besides the
    question."""
    partition, question = record.partition.encode(*UTF8), record.question.encode(*UTF8)
    header = HEADER.pack(
        FORMAT,
        record.created_ms,
        record.expires_ms,
        record.model,
        len(record.vector),
        len(partition),
        len(question),
    )
    body = header + partition + question + record.vector.astype("<f2").tobytes()
    return _checksum(record.tenant, record.id, body) + body


def decode_question(data: bytes, tenant: str, entry_id: str) -> QuestionRecord:
    """Returns the record in ``data``, which ``encode_question`` has written. Raises PoisonedQuestionError, whose
    message quotes no text, if it is no valid record of this tenant and id."""
    body = data[CHECKSUM_BYTES:]
    if data[:CHECKSUM_BYTES] != _checksum(tenant, entry_id, body):
        raise PoisonedQuestionError("the record is not whole, or another entry's")
    try:
        written, created, expires, model, dimensions, partition, question = HEADER.unpack_from(body)
    except struct.error:
        raise PoisonedQuestionError("the record is too short") from None
    middle, end = HEADER.size + partition, HEADER.size + partition + question
    if written != FORMAT or len(body) != end + 2 * dimensions:
        raise PoisonedQuestionError("the record is of another release")
    vector = np.frombuffer(body, "<f2", dimensions, end).astype(np.float32)
    texts = body[HEADER.size : middle].decode(*UTF8), body[middle:end].decode(*UTF8)
    return QuestionRecord(tenant, entry_id, *texts, created, expires, model, vector)


def _checksum(tenant: str, entry_id: str, body: bytes) -> bytes:
    names = f"{len(tenant)}:{tenant}{entry_id}".encode(*UTF8)
    return hashlib.blake2b(
        body, digest_size=CHECKSUM_BYTES, key=hashlib.blake2b(names, digest_size=32).digest()
    ).digest()
