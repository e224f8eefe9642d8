"""The scheduler: decides which sequences compute which tokens in the next step. Uses no tensors and reads no clock."""
