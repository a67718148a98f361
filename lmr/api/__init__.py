"""What a Python program and the command line call: prepare a workflow, run it, open its results."""
