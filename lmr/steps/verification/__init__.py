"""Steps of stage 2, spatial verification."""
