"""SwinIR on a CPU: the blocks as a C++ kernel, compiled on the machine at hand, forwards and backwards."""
