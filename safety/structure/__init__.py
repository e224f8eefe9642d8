"""Structural signals in prompts, documents and tool results: role markers, encoded payloads, anomalies."""
