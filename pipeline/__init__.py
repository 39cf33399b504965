"""Media, storage and the distributed run."""

__version__ = "0.1.0"
