"""Stage 4, query expansion: a query is searched again together with what it found."""
