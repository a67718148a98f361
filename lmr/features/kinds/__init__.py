"""One small file per extractor, or per family: its entry in the table of `lmr.features.extractors`.

A file here imports nothing heavy: the extractor's own module is imported when it is opened.
"""
