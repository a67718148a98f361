"""Steps that find groups of photos of one place, without queries."""
