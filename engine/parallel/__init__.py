"""One model over several processes, each with a share of every layer (Shoeybi et al. 2019, Megatron-LM).

Rank 0 is the engine's own process: it schedules, samples and keeps the books. The others are told each step's plan and
compute their share of it.
"""
