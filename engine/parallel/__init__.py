"""One model over several processes, each with a share of every layer (Shoeybi et al. 2019, Megatron-LM).

Rank 0 is the engine's own process: it schedules, samples and manages the KV blocks. It sends each step's plan to the
other ranks, which compute their shares.
"""
