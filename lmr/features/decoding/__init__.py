"""Photos from bytes: the list of formats, decoding to upright RGB, and decoding in a process with limits."""

from lmr.features.decoding.decode import MAX_PIXELS, decode_photo, inspect_photo, probe_photo

__all__ = ["MAX_PIXELS", "decode_photo", "inspect_photo", "probe_photo"]
