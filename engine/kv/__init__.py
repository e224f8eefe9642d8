"""Who owns which KV block: pure bookkeeping over block ids; the tensors themselves belong to the runner."""
