"""The operations under the decoder: one interface, implementations chosen once at start."""
