"""Kernels for CUDA in Triton. With TRITON_INTERPRET=1 set before they are imported they run on a CPU."""
