"""What a run leaves for people: scores, the submission and the report."""
