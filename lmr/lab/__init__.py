"""Several servers as one cluster, by ssh."""
