"""What one grammar may cost. Each grammar is tried within these limits before the engine compiles it."""

from __future__ import annotations

from typing import Any

MAX_COMPILE_S = 1.5  # CPU seconds for compiling and for the first steps
MAX_STEP_S = 0.1  # CPU seconds for one operation of a step: a mask, the forced tokens, or reading tokens
MAX_MEMORY_BYTES = 512 * 2**20  # beyond what the process that tries grammars has already
MAX_STACK_BYTES = 2**20  # half of what the smallest of the engine's threads have: llguidance's own have 2 MiB
MAX_WAIT_S = 30.0  # seconds of wall time, on a machine whose cores are busy

# At run time: CPU seconds. An operation that takes longer than SLOW_OPERATION_S is slow; those of one request may take
# MAX_SLOW_S together, and one alone MAX_OPERATION_S. Most operations take less than a millisecond.
SLOW_OPERATION_S = 0.02
MAX_SLOW_S = 1.0
SLOW_ROW_S = 0.0005  # what each row adds to the time after which the masks of a step are looked at one by one
MAX_OPERATION_S = 0.5  # above what the limits below allow on a slow machine

# llguidance's own limits. An ambiguous grammar's step costs the square of its items: 0.02 s with 2,500, 0.1 s with
# 5,000 and 0.35 s with 20,000.
PARSER_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 5_000,
    "max_items_in_row": 5_000,  # an object with 1,000 optional properties has a row of 4,000
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "max_grammar_size": 16_000,  # symbols; an object with 1,000 optional properties has 8,000
    "verbose_errors": False,  # they quote the text, and end in logs
}
