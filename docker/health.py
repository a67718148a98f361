"""Exit with 0 if a Dask process of this container answers on its health page, with 1 if none does.

Workers' pages listen on loopback at ports of their own choice, the scheduler's at port 8787: only these are
asked. A TLS port asked in plain HTTP would fill the log with failed handshakes.
"""

import ipaddress
import sys
import urllib.error
import urllib.request

LISTENING = "0A"
DASHBOARD_PORT = 8787
SECONDS = 5


def pages(table: str) -> list[str]:
    """Return the health pages that may be listening, from the text of /proc/net/tcp."""
    found = []
    for row in table.splitlines()[1:]:
        local, state = row.split()[1], row.split()[3]
        host, port = local.split(":")
        address = ipaddress.ip_address(bytes.fromhex(host)[::-1])
        if state == LISTENING and (address.is_loopback or int(port, 16) == DASHBOARD_PORT):
            found.append(f"http://{address}:{int(port, 16)}/health")
    return found


def healthy(page: str) -> bool:
    """Return whether a page answers that all is well."""
    try:
        with urllib.request.urlopen(page, timeout=SECONDS) as answer:
            return bool(answer.read().strip() == b"ok")
    except urllib.error.HTTPError as refused:
        refused.close()
        return False
    except OSError:
        return False


if __name__ == "__main__":
    with open("/proc/net/tcp") as file:
        sys.exit(not any(healthy(page) for page in pages(file.read())))
