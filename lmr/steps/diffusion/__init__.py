"""Steps of stage 5, diffusion."""
