"""`lmr serve`: search a run's gallery in a browser."""

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr.cli import interrupts
from lmr.cli.report import Run
from lmr.cli.search import OwnCode
from lmr.text import printable

__all__ = ["serve"]

out = Console(highlight=False)


def serve(
    run: Run,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other machines reach it only if it is not loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: any free one.")] = 8000,
    name: Annotated[
        list[str] | None, typer.Option(help="Further name under which it is asked, such as a proxy's.")
    ] = None,
    per_minute: Annotated[
        float, typer.Option(min=1, max=100_000, help="Searches of one client in a minute.")
    ] = 60.0,
    own_code: OwnCode = False,
) -> None:
    """Serve a page on which a run's gallery is searched with photos, and an interface for programs.

    Elsewhere than on loopback a token is needed: LMR_SERVE_TOKEN, or one that is made and printed. The token
    and the photos travel unencrypted, so put a proxy with TLS before it.
    """
    interrupts.say("stopped; the page is served no more")
    from lmr.api.server.limits import Limits
    from lmr.api.server.serve import prepare_server

    served = prepare_server(
        run,
        host=host,
        port=port,
        names=name or (),
        token=os.environ.get("LMR_SERVE_TOKEN"),
        limits=Limits(per_minute=per_minute),
        own_code=own_code,
    )
    out.print(Text(printable(f"open {served.url}")), soft_wrap=True)
    out.print("stop it with Ctrl-C")
    served.run()
