"""The text classifier: windows of a text, scored by an encoder with a head, in batches across requests."""
