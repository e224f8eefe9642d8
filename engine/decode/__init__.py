"""From logits to text: logit rules, grammars, sampling, beam search, stop conditions and detokenising."""
