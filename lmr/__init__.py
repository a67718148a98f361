"""Find every photo of the same landmark in a million, as distributed Dask workflows."""

__version__ = "0.1.0"
