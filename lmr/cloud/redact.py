"""Keeps account ids, keys and bucket names out of what is printed and logged."""

import logging
import re
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["Redactor", "RedactedText", "redact_logs"]

PATTERNS = (
    (re.compile(r"s3://[a-z0-9][a-z0-9.-]{2,62}"), "s3://BUCKET"),
    (re.compile(r"arn:(aws[a-z-]*):s3:::[a-z0-9.-]+"), r"arn:\1:s3:::BUCKET"),
    (re.compile(r"\blmr-[a-z0-9-]+?-bucket-[a-z0-9]{12,14}\b"), "BUCKET"),
    (re.compile(r"(?<![0-9A-Za-z-])\d{12}(?![0-9A-Za-z-])"), "ACCOUNT"),
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), "KEY"),
    (
        re.compile(
            r"(?i)(secret[_ -]?(?:access[_ -]?)?key|session[_ -]?token|signature)(\W{1,4})[\w/+=-]{8,}"
        ),
        r"\1\2KEY",
    ),
)


class Redactor:
    """Replaces what must not be seen: by form, and what it was told of by name."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def hide(self, secret: str | None, label: str) -> None:
        """Replace a text from now on, wherever it occurs."""
        if secret and len(secret) >= 3:
            self.known[secret] = label

    def __call__(self, text: str) -> str:
        """Return the text without what must not be seen."""
        for secret in sorted(self.known, key=len, reverse=True):
            text = text.replace(secret, self.known[secret])
        for pattern, label in PATTERNS:
            text = pattern.sub(label, text)
        return text


class RedactedText:
    """A text stream that redacts what is written to it."""

    def __init__(self, stream: Callable[[], TextIO], redactor: Redactor) -> None:
        # Asked for at each write: a console outlives the stream that it was made with.
        self._stream = stream
        self._redactor = redactor

    def write(self, text: str) -> int:
        """Write a text, redacted; return how many characters were written."""
        return self._stream().write(self._redactor(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream(), name)


def redact_logs(redactor: Redactor) -> None:
    """Redact every log record that this process makes from now on, whichever library makes it."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redactor", None) is redactor:
        return

    def redacted(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        record.msg, record.args = redactor(record.getMessage()), None
        return record

    redacted.redactor = redactor  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)
