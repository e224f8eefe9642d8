"""What the engine's kernels do on one card, and the engine on them: ``python load_tests/gpu/run.py --out DIR``."""
