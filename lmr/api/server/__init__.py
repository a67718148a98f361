"""A small web application that searches a finished run's gallery: `lmr serve`."""
