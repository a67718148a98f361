"""Extractors of local features, and how their descriptors are stored."""
