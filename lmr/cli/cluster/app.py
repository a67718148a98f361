"""`lmr cluster`, whole: what is done anywhere, in a lab, and on AWS."""

from lmr.cli.cluster import aws
from lmr.cli.cluster.lab import lab_app
from lmr.cli.cluster.machines import cluster_app

__all__ = ["cluster_app"]

cluster_app.add_typer(lab_app, name="lab")
aws.add_to(cluster_app)
