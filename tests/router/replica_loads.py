"""Loads of replicas: an idle one, and any."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from router.ports.replica_load import ReplicaLoad

seconds = st.floats(0, 10)
counts = st.integers(0, 10_000)
queues = st.tuples(counts, counts, counts)
loads = st.builds(
    ReplicaLoad,
    running=st.integers(0, 300),
    waiting=st.integers(0, 2_000),
    blocks_used=counts,
    blocks_total=counts,
    wait_s=seconds,
    decoding=st.integers(0, 300),
    queued_short=st.just(()) | queues,
    queued_long=st.just(()) | queues,
    step_s=seconds,
    prompt_token_s=seconds,
    sequence_s=seconds,
    step_tokens=st.integers(0, 4_096),
    long_step_tokens=st.integers(0, 4_096),
    long_beside_decodes=st.integers(0, 4_096),
    prefill_chunk=st.integers(0, 1_024),
    max_sequences=st.integers(0, 300),
    output_tokens=st.floats(0, 1_000),
    kv_demand_tokens=st.floats(0, 1e6),
    kv_capacity_tokens=st.floats(0, 1e6),
    long_prompts=st.integers(0, 50),
    long_at_once=st.integers(0, 4),
    correction=st.floats(0.1, 10),
    overhead_s=st.floats(0, 1),
    step_age_s=st.floats(-1, 20),
    free_prompt_tokens=st.integers(0, 1_024),
).map(lambda load: replace(load, long_beside_decodes=min(load.long_beside_decodes, load.long_step_tokens)))


IDLE = ReplicaLoad(
    queued_short=(0, 0, 0),
    queued_long=(0, 0, 0),
    step_s=0.01,
    prompt_token_s=0.001,
    sequence_s=0.0005,
    step_tokens=2_048,
    long_step_tokens=1_024,
    long_beside_decodes=32,
    prefill_chunk=512,
    max_sequences=64,
    output_tokens=100.0,
    kv_capacity_tokens=50_000.0,
)
