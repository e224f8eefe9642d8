"""How well a fact is found in a long prompt, by its depth and the prompt's length, as it is and made shorter."""
