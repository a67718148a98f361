"""Weights of networks: fetching them, and reading the files that they come in."""
