"""Global descriptors that are aggregated from local features."""
