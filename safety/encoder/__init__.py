"""Encoders of the BERT family: token ids in, hidden states out, on one thread, without torch."""
