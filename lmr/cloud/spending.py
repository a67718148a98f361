"""A cluster's ledger: from when on it cost how much. Kept in its bucket, it outlives cluster and laptop."""

import json
from collections.abc import Sequence
from datetime import datetime

from lmr.cloud.prices import Rate
from lmr.cloud.session import Aws, aws_errors

__all__ = ["read_spending", "record", "write_spending"]

KEY = "ledger.jsonl"


def record(
    ledger: Sequence[Rate], now: datetime, usd_per_hour: float, stop: Rate | None = None
) -> list[Rate]:
    """Return a ledger with a new rate.

    Parameters
    ----------
    ledger
        What was written so far. Rates that lie ahead were planned, and stay planned unless `stop` replaces
        them or the cluster ends (a rate of 0).
    now, usd_per_hour
        The new rate.
    stop
        What it will cost from when on, since the groups stop by themselves then.
    """
    keep_plan = stop is None and usd_per_hour > 0
    past = [rate for rate in ledger if rate.at <= now or keep_plan]
    return [*past, Rate(now, usd_per_hour), *([stop] if stop else [])]


def read_spending(aws: Aws, bucket: str) -> list[Rate]:
    """Read a ledger; empty where none was written yet."""
    from botocore.exceptions import ClientError

    try:
        body = aws.client("s3").get_object(Bucket=bucket, Key=KEY)["Body"].read().decode()
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return []
        with aws_errors(aws.redactor):
            raise
    rows = [json.loads(line) for line in body.splitlines()]
    return [Rate(datetime.fromisoformat(row["at"]), float(row["usd_per_hour"])) for row in rows]


def write_spending(aws: Aws, bucket: str, ledger: Sequence[Rate]) -> None:
    """Write a ledger."""
    lines = [
        json.dumps({"at": rate.at.isoformat(), "usd_per_hour": round(rate.usd_per_hour, 6)})
        for rate in ledger
    ]
    with aws_errors(aws.redactor):
        aws.client("s3").put_object(Bucket=bucket, Key=KEY, Body="\n".join(lines).encode())
