"""``ReplicaProfile``: how fast a replica is, and how much it holds. Profiles fitted to published and own figures.

A step that only decodes takes ``step_s + sequence_s * sequences + kv_s * resident tokens``: weights, then what each
sequence and each cached token adds. Attention reads the cache, so the last term follows the memory bandwidth. A step
that also prefills a chunk takes the chunk's time in place of the weights' if that is longer, since both wait for the
same weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True, slots=True)
class ReplicaProfile:
    """The constants of the model. Times in seconds, lengths in tokens."""

    name: str
    source: str  # where the figures are from
    gpus: int  # of one replica
    prefill_tokens_s: float  # prompt tokens a second when nothing decodes
    step_s: float  # of a decode step, before any sequence
    sequence_s: float  # that a sequence adds to a step
    kv_s: float  # that a resident token adds to a step
    chunk_tokens: int  # prompt tokens of a mixed step
    kv_tokens: int  # that the cache holds
    max_sequences: int  # that decode or prefill at once
    # Prompts of one chunk that come in a step together, in tokens. They all have their first tokens at its end. None:
    # one is computed after the other.
    short_tokens: int | None = None
    # The most time of a step with a chunk of a longer prompt, as a multiple of that of its decodes alone. None: a whole
    # chunk is computed beside them.
    decode_slowdown: float | None = None
    # These follow from the others, once: replicas report them with each request.
    chunk_s: float = field(init=False)  # that a full chunk takes, at least a step's own
    prompt_token_s: float = field(init=False)  # that a token of a chunk adds to a step

    def __post_init__(self) -> None:
        chunk_s = max(self.chunk_tokens / self.prefill_tokens_s, self.step_s)
        object.__setattr__(self, "chunk_s", chunk_s)
        object.__setattr__(self, "prompt_token_s", (chunk_s - self.step_s) / self.chunk_tokens)

    def decode_step_s(self, sequences: float, kv_tokens: float) -> float:
        """Returns the time of a step that only decodes."""
        return self.step_s + self.sequence_s * sequences + self.kv_s * kv_tokens

    def request_s(self, prompt: float, output: float, cached: float = 0.0) -> float:
        """Returns the seconds that a request adds to the steps of a busy replica: its chunks, less the weights that a
        step reads anyway, and its part of decodes.

        ``prompt`` includes the ``cached`` tokens, which cost memory and attention but no prefill.
        """
        chunks = (prompt - cached) / self.chunk_tokens
        return chunks * (self.chunk_s - self.step_s) + output * self._token_s(prompt, output)

    def capacity_rps(self, prompt: float, output: float, itl_s: float, cached: float = 0.0) -> float:
        """Returns the requests/s of these mean lengths at which tokens come every ``itl_s`` seconds on average.

        In a steady state at r requests/s a step takes t = step_s + r * request_s * t on average, and by Little's law
        r * output * t sequences decode. So t = step_s / (1 - r * request_s), which gives r for a step of itl_s, and the
        r at which the sequences reach what the replica holds. At a third r every step has a chunk. The lowest counts.
        """
        work = self.request_s(prompt, output, cached)
        held = self.held(prompt, output)
        in_time = max(0.0, 1 - self.step_s / itl_s) / work if work else inf
        in_memory = held / (output * self.step_s + held * work)
        in_steps = 1 / ((prompt - cached) / self.chunk_tokens * self.chunk_s + output * self._token_s(prompt, output))
        return min(in_time, in_memory, in_steps)

    def ongoing(self, rate: float, prompt: float, output: float, cached: float = 0.0) -> float:
        """Returns the mean number of sequences that decode at ``rate`` requests/s, at most as many as are held."""
        free = 1 - rate * self.request_s(prompt, output, cached)
        held = self.held(prompt, output)
        return min(rate * output * self.step_s / free, held) if free > 0 else held

    def held(self, prompt: float, output: float) -> float:
        """Returns the number of sequences of these lengths that are held at once, with half of their outputs on
        average."""
        return min(self.max_sequences, self.kv_tokens / (prompt + output / 2))

    def _token_s(self, prompt: float, output: float) -> float:
        """The seconds that a sequence of these lengths adds to a step."""
        return self.sequence_s + self.kv_s * (prompt + output / 2)


_TRT = "TensorRT-LLM 1.0 performance overview, FP8, throughput at 1000/1000, 2048/2048, 2048/128"

PROFILES = {
    profile.name: profile
    for profile in (
        ReplicaProfile("8b-h100", _TRT, 1, 70_000, 3.5e-3, 5e-6, 26.5e-9, 1024, 850_000, 512),
        ReplicaProfile("8b-h200", _TRT, 1, 70_000, 3.0e-3, 11.8e-6, 16.3e-9, 1024, 1_700_000, 512),
        ReplicaProfile("70b-h100x2", _TRT, 2, 14_400, 13e-3, 25e-6, 55e-9, 512, 430_000, 286),
        ReplicaProfile("70b-h200", _TRT, 1, 8_080, 14.6e-3, 5e-6, 98.9e-9, 512, 330_000, 256),
        # docs/benchmarks.md, "Triton's kernels on an H200": a token alone 4.13 ms, a step of 256 sequences of 1,024
        # tokens 16.13 ms, prompts 40,724 tokens/s. The cache of Qwen3-8B is 147 kB a token, read at 4,245 GB/s.
        ReplicaProfile(
            "manta-8b-h200", "own engine, Qwen3-8B bf16", 1, 40_724, 4.13e-3, 11e-6, 35e-9, 1024, 700_000, 256
        ),
    )
}
DEFAULT_PROFILE = "70b-h100x2"
