"""A cluster's client, addresses, certificates, tunnels and workers, and what is checked before a run."""
