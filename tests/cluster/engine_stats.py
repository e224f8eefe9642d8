"""``STATS``: counters and gauges of an engine."""

from __future__ import annotations

from engine.api import EngineStats

STATS = EngineStats(
    running=3,
    waiting=2,
    blocks_total=100,
    blocks_used=40,
    blocks_cached=10,
    steps=7,
    prompt_tokens=50,
    cached_tokens=20,
    generated_tokens=30,
    finished=4,
    aborted=1,
    failed=0,
    preemptions=2,
    guessed_tokens=9,
    right_guesses=6,
    wait_s=1.5,
)
