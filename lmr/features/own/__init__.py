"""Extractors of one's own: code that lmr does not know, found by its file, checked by what it returns."""
