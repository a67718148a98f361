"""The numerics of the five stages: arrays in, arrays out."""
