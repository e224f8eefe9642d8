"""From logits to text: choosing tokens, stopping, turning tokens into text as they come."""
