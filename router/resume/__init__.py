"""Resumable streams: an answer is generated and stored whether its client is connected or not."""
