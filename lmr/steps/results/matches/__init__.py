"""The matches of a run: lists of every stage, tables, and copies of the photos."""
