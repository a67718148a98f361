"""Stage 1, local search: local features of a query vote for photos of the gallery."""
