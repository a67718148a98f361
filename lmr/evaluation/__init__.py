"""Scores by named protocol, the formats of the contests, calibration, and the pages of a report."""
