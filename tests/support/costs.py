"""Costs of steps that tests make up."""

from lmr.runtime.steps import Cost

__all__ = ["cost"]


def cost(rows: int = 0, bytes_per_row: float = 0.0, task_bytes: float = 1e6) -> Cost:
    return Cost(rows=rows, bytes_per_row=bytes_per_row, task_bytes=task_bytes, work=rows, unit="row")
