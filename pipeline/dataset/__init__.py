"""Archives of images: list, read, upscale, write, index."""
