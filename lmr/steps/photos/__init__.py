"""Steps that list and ingest photos."""
