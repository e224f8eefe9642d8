"""The KV cache manager: which sequence holds which KV block. Only bookkeeping of block ids; runners own the tensors."""
