"""The kernels: the operations of the decoder. There is one interface; the implementation is chosen once at start."""
