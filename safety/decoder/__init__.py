"""Causal decoders of the Llama family without a head: token ids in, hidden states out, on one thread, without torch."""
