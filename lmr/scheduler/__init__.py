"""What lmr adds to Dask's scheduler: kept runs, speculative execution, blame for lost workers."""
