"""Pages of strangers do not reach a dashboard: real schedulers and workers, asked as browsers ask."""

import http.client
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from bokeh.util.token import generate_jwt_token

from lmr.cluster.certificates import make_certificates
from lmr.cluster.client import Where, connect, open_client, workers_of
from lmr.cluster.commands import Command, worker_command
from lmr.cluster.tunnel import Place, dashboard_place
from tests.support import servers


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    with servers.scheduler(tmp_path_factory.mktemp("dashboard"), dashboard_names=["lab.example"]) as address:
        yield dashboard_place(address, None)


def status(place, path, host, **headers):
    with closing(http.client.HTTPConnection(place.host, place.port, timeout=60)) as connection:
        connection.request("GET", path, headers={"Host": host, **headers})
        return connection.getresponse().status


def opens_websocket(place, host, origin):
    """Tell whether the websocket of a page opens, asked as Bokeh's own script in a browser asks."""
    answer = status(
        place,
        "/status/ws",
        host,
        Origin=origin,
        Connection="Upgrade",
        Upgrade="websocket",
        **{
            "Sec-WebSocket-Key": "bG1ycyBvd24gc29ja2V0IQ==",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": f"bokeh, {generate_jwt_token('a')}",
        },
    )
    assert answer in (101, 403)
    return answer == 101


@pytest.mark.cluster
@pytest.mark.parametrize("path", ["/status", "/health", "/info/main/workers.html", "/nowhere"])
def test_a_foreign_name_is_refused_on_every_page(dashboard, path):
    for host in (
        "evil.example",
        f"evil.example:{dashboard.port}",
        "localhost.evil.example",
        "127.0.0.1.evil",
    ):
        assert status(dashboard, path, host) == 403
    for host in (f"127.0.0.1:{dashboard.port}", "localhost:9999", "[::1]:8787", "lab.example", "10.1.2.3"):
        assert status(dashboard, path, host) == (404 if path == "/nowhere" else 200)
    assert status(dashboard, path, "localhost:8787", Origin="http://evil.example") == 403


@pytest.mark.cluster
def test_a_websocket_opens_for_the_dashboards_own_pages_only(dashboard):
    tunnel = "localhost:9000"  # `lmr dashboard` may open any port of the user's machine
    for host, origin, opens in (
        (tunnel, f"http://{tunnel}", True),
        ("127.0.0.1:8787", "http://127.0.0.1:8787", True),
        (tunnel, "http://evil.example", False),
        (tunnel, "http://evil.example:9000", False),
        (tunnel, "http://203.0.113.5:9000", False),
        (tunnel, "null", False),
        (tunnel, "http://[", False),
        ("evil.example:9000", "http://evil.example:9000", False),
    ):
        assert opens_websocket(dashboard, host, origin) is opens, (host, origin)


@pytest.mark.cluster
def test_a_workers_own_page_is_as_careful(tmp_path):
    with servers.scheduler(tmp_path) as address:
        log = tmp_path / "worker.log"
        with servers.started(worker_command(address, workers=1), log):
            servers.said(log, "Registered to")
            with connect(address, None) as client:
                (place,) = client.run(_page).values()
            assert status(Place(*place), "/health", "evil.example") == 403
            assert status(Place(*place), "/health", "127.0.0.1") == 200


@pytest.mark.cluster
def test_so_are_the_pages_of_a_run_on_this_machine():
    with open_client(Where(workers=1)) as client:
        pages = [client.run_on_scheduler(_scheduler_page), *client.run(_page).values()]
        for page in pages:
            assert status(Place(*page), "/health", "evil.example") == 403
            assert status(Place(*page), "/health", "localhost") == 200


def _page(dask_worker):
    return dask_worker.http_server.address, dask_worker.http_server.port


def _scheduler_page(dask_scheduler):
    return dask_scheduler.http_server.address, dask_scheduler.http_server.port


@pytest.mark.cluster
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_a_cluster_on_ipv6_over_tls(tmp_path):
    certs = tmp_path / "certs"
    make_certificates(certs, hosts=["::1"])
    with servers.scheduler(tmp_path, certs, host="::1", dashboard_host="::1") as address:
        assert address.startswith("tls://[::1]:")
        log = tmp_path / "worker.log"
        with servers.started(worker_command(address, tls=str(certs), workers=1), log):
            servers.said(log, "Registered to")
            with connect(address, str(certs)) as client:
                assert client.submit(sum, [1, 2]).result(timeout=60) == 3
                (worker,) = workers_of(client)
                assert worker.startswith("tls://[::1]:")
        place = dashboard_place(address, str(certs))
        assert place.host == "::1"
        assert status(place, "/status", f"[::1]:{place.port}") == 200
        assert status(place, "/status", "evil.example") == 403


@pytest.mark.cluster
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_the_commands_that_users_type_take_ipv6(tmp_path):
    lmr = (sys.executable, "-m", "lmr")
    certs, log, worker_log = (str(tmp_path / name) for name in ("certs", "scheduler.log", "worker.log"))
    subprocess.run([*lmr, "cluster", "certs", certs, "--host", "::1"], check=True, capture_output=True)
    start = (*lmr, "cluster", "scheduler", "--tls", certs, "--host", "::1", "--port", "0")
    start = Command((*start, "--dashboard-host", "::1", "--dashboard-port", "0"))
    with servers.started(start, Path(log)):
        address = servers.said(Path(log), r"Scheduler at:\s+(\S+)")[1]
        work = Command((*lmr, "cluster", "worker", address, "--tls", certs, "--workers", "1"))
        with servers.started(work, Path(worker_log)):
            servers.said(Path(worker_log), "Registered to")
            where = ["--scheduler", address, "--tls", certs]
            shown = subprocess.run(
                [*lmr, "dashboard", *where], capture_output=True, text=True, check=True
            ).stdout
            port = re.search(r"the dashboard listens at \[::1\]:(\d+)", shown)[1]
            assert f"127.0.0.1:8787:[::1]:{port} HOST" in shown.replace("'", "")
            retired = subprocess.run(
                [*lmr, "cluster", "retire", address, "--tls", certs],
                capture_output=True,
                text=True,
                check=True,
            )
            assert retired.stdout == "1 workers retired\n"
