"""SwinIR on a GPU: the blocks as Triton kernels, whole passes as CUDA graphs, and pictures on their way there and back."""
