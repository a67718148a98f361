"""Stage 2, spatial verification: RANSAC on the matches of two photos."""
