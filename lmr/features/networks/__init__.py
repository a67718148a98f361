"""The networks behind descriptors, in torch."""
