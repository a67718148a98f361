"""The report of a run: its page, its pictures, and what they tell."""
