"""The workflows that come with lmr, a file for each."""
