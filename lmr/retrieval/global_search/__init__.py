"""Stage 3, global search: nearest descriptors, exact or through an index."""
