"""The names of the metrics that rules and dashboards use, as Prometheus sees them.

A test compares each, with the labels that are asked for, with those that ``cluster.telemetry`` defines.
"""

from __future__ import annotations

REQUESTS = "ray_manta_requests_total"
TOKENS = "ray_manta_tokens_total"
COST = "ray_manta_cost_total"
LIMIT_WARNINGS = "ray_manta_limit_warnings_total"
LIMIT_REFUSALS = "ray_manta_limit_refusals_total"
FAILOVERS = "ray_manta_failovers_total"
ADMISSIONS = "ray_manta_admissions_total"
ADMISSION_WAITING = "ray_manta_admission_waiting_requests"
ADMISSION_TOKENS = "ray_manta_admission_waiting_tokens"
ADMISSION_TTFT = "ray_manta_admission_ttft_seconds"
ADMISSION_PRESSURE = "ray_manta_admission_pressure"
SAFETY_DECISIONS = "ray_manta_safety_decisions_total"
SAFETY_VERDICTS = "ray_manta_safety_verdicts_total"
SPECULATIONS = "ray_manta_speculations_total"

CACHE_REQUESTS = "ray_manta_cache_requests_total"
CACHE_REASONS = "ray_manta_cache_reasons_total"
CACHE_STORED = "ray_manta_cache_stored_total"
CACHE_UNSTORED = "ray_manta_cache_unstored_total"
CACHE_POISONED = "ray_manta_cache_poisoned_total"
CACHE_JUDGED = "ray_manta_cache_judged_total"

LOST_RECORDS = "ray_manta_lost_records_total"
LOST_TEXTS = "ray_manta_lost_texts_total"
UNREADABLE_POLICIES = "ray_manta_unreadable_policies_total"
UNTRACED = "ray_manta_untraced_requests_total"
TRACE_FAULTS = "ray_manta_trace_faults_total"
BREAKER_OPEN = "ray_manta_breaker_open"
JOURNAL_BYTES = "ray_manta_journal_bytes"

BUILD_INFO = "ray_manta_build_info"
ROUTER_BUILD_INFO = "ray_manta_router_build_info"
RUNNING = "ray_manta_engine_running"
WAITING = "ray_manta_engine_waiting"
OLDEST_WAIT = "ray_manta_engine_oldest_wait_seconds"
EXPECTED_WAIT = "ray_manta_engine_expected_wait_seconds"
KV_BLOCKS = "ray_manta_kv_blocks"
STEPS = "ray_manta_engine_steps_total"
PROMPT_TOKENS = "ray_manta_engine_prompt_tokens_total"
CACHED_TOKENS = "ray_manta_engine_cached_tokens_total"
GENERATED_TOKENS = "ray_manta_engine_generated_tokens_total"
ENGINE_REQUESTS = "ray_manta_engine_requests_total"
PREEMPTIONS = "ray_manta_engine_preemptions_total"
REPAIRS = "ray_manta_engine_repairs_total"
DRAFT_TOKENS = "ray_manta_engine_draft_tokens_total"
ACCEPTED_TOKENS = "ray_manta_engine_accepted_tokens_total"
PREFIX_MISSES = "ray_manta_engine_prefix_misses_total"
PHASE_SECONDS = "ray_manta_engine_phase_seconds_total"

TARGET_REPLICAS = "ray_manta_autoscaling_target_replicas"
NEEDED_REPLICAS = "ray_manta_autoscaling_needed_replicas"
START_FAILURES = "ray_manta_replica_start_failures_total"
READY_REPLICAS = "ray_manta_autoscaling_ready_replicas"
WAITING_FOR_START = "ray_manta_autoscaling_waiting_requests"
COLD_START = "ray_manta_autoscaling_cold_start_s"
BUDGET_BURN = "ray_manta_autoscaling_budget_burn"
SCALING_DECISIONS = "ray_manta_autoscaling_decisions_total"
SCALING_WHY_NOT = "ray_manta_autoscaling_why_not_total"

# Histograms: ``bucket_of`` and ``count_of`` name their series.
TTFT = "ray_manta_ttft_seconds"
STAGE = "ray_manta_stage_seconds"
TTFT_ERROR = "ray_manta_ttft_error"
ITL = "ray_manta_itl_seconds"
QUEUE_WAIT = "ray_manta_queue_wait_seconds"
STEP = "ray_manta_step_seconds"
BATCH = "ray_manta_batch_sequences"
PROMPT_LENGTH = "ray_manta_prompt_length_tokens"
ANSWER_LENGTH = "ray_manta_answer_length_tokens"


def bucket_of(histogram: str) -> str:
    """Returns the name of a histogram's buckets, which have the label ``le``."""
    return f"{histogram}_bucket_total"


def count_of(histogram: str) -> str:
    """Returns the name of the number of a histogram's values."""
    return f"{histogram}_count_total"


def sum_of(histogram: str) -> str:
    """Returns the name of the sum of a histogram's values."""
    return f"{histogram}_sum_total"
