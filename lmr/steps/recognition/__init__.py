"""Recognition: labels of the gallery, what is known of photos without a landmark, and a name per query."""
