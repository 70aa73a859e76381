"""TwinFS: a distributed file system in which every byte has a path and a hash."""

__version__ = "0.1.0"
__all__ = ["__version__"]
