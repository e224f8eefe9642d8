"""Limits on the cost of one grammar. A new grammar is tried out within these limits before the engine compiles it."""

from __future__ import annotations

from typing import Any

MAX_COMPILE_S = 1.5  # CPU seconds for compiling and for the first steps
MAX_STEP_S = 0.1  # CPU seconds for one operation of a step: a token mask, the forced tokens, or reading tokens
MAX_MEMORY_BYTES = 512 * 2**20  # memory of a trial, beyond what its process has already
MAX_STACK_BYTES = 2**20  # half the smallest stack of the engine's threads: llguidance's own have 2 MiB
MAX_WAIT_S = 30.0  # seconds of wall time for a trial, enough on a machine whose cores are busy

# Limits while answers are generated, in CPU seconds. An operation of more than SLOW_OPERATION_S is slow. The slow
# operations of one request may take MAX_SLOW_S together, and a single one MAX_OPERATION_S. Most operations take less
# than a millisecond.
SLOW_OPERATION_S = 0.02
MAX_SLOW_S = 1.0
SLOW_ROW_S = 0.0005  # time per row after which the masks of a step are timed one by one, beside SLOW_OPERATION_S
MAX_OPERATION_S = 0.5  # above what the limits below allow on a slow machine

# llguidance's own limits. The step of an ambiguous grammar takes time quadratic in its number of items: 0.02 s with
# 2,500, 0.1 s with 5,000 and 0.35 s with 20,000.
PARSER_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 5_000,
    "max_items_in_row": 5_000,  # an object with 1,000 optional properties has a row of 4,000
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "max_grammar_size": 16_000,  # symbols; an object with 1,000 optional properties has 8,000
    "verbose_errors": False,  # verbose messages quote the answer, which must not get into logs
}
