"""Calibration on labelled answers of a finished run: a threshold, and a probability."""
