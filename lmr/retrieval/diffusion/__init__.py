"""Stage 5, diffusion: ranks spread over a graph of regions."""
