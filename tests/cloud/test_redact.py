"""Account ids, keys and bucket names are not shown."""

import io
import logging

import pytest

from lmr.cloud.redact import RedactedText, Redactor, redact_logs

KEY = "AKIAIOSFODNN7EXAMPLE"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("arn:aws:iam::123456789012:user/me", "arn:aws:iam::ACCOUNT:user/me"),
        ("wrote s3://my-photos.2018/run/part-0", "wrote s3://BUCKET/run/part-0"),
        ("arn:aws-cn:s3:::my-photos/run", "arn:aws-cn:s3:::BUCKET/run"),
        ("stack made lmr-push-bucket-4nzmxr3awvne today", "stack made BUCKET today"),
        (f"Credential={KEY}/20261124", "Credential=KEY/20261124"),
        ("secret_access_key = wJalrXUtnFEMI/K7MDENG", "secret_access_key = KEY"),
        # What only looks like one stays: times in milliseconds, instances, addresses.
        ("1795500037875 i-123456789012abcde 10.77.0.12", "1795500037875 i-123456789012abcde 10.77.0.12"),
    ],
)
def test_by_form(text, seen):
    assert Redactor()(text) == seen


def test_by_name_the_longest_first():
    redactor = Redactor()
    redactor.hide("photos", "BUCKET")
    redactor.hide("photos-2018", "BUCKET")
    redactor.hide("", "BUCKET")
    redactor.hide(None, "KEY")
    assert redactor("photos-2018 and photos") == "BUCKET and BUCKET"


def test_streams_and_logs():
    redactor = Redactor()
    redactor.hide("my-photos", "BUCKET")
    stream = io.StringIO()
    RedactedText(lambda: stream, redactor).write("in my-photos of 123456789012\n")
    before = logging.getLogRecordFactory()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    try:
        redact_logs(redactor)
        redact_logs(redactor)
        logger.warning("%s holds %d objects of %s", "my-photos", 3, "123456789012")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    assert stream.getvalue() == "in BUCKET of ACCOUNT\nBUCKET holds 3 objects of ACCOUNT\n"
