"""What a run is: settings, steps, shards, receipts and the Dask graph."""
