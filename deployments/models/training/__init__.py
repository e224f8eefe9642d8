"""Trains the embedded models: one tokenizer and three llama-family sizes, from public data and generated tasks."""
