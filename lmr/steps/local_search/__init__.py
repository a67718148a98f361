"""Steps of stage 1, local search."""
