"""Steps of stage 3, global search."""
