"""Kernels for CUDA in Triton. With TRITON_INTERPRET=1 in the environment, before this is imported, they run on a CPU."""
