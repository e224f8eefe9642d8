"""Who computes what in the next step: decisions only, no tensors and no clock."""
