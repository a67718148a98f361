"""`lmr cluster`: machines of any kind, servers in a lab, and a cluster on AWS."""
