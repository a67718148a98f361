"""The steps that workflows are made of: shards in, shard out."""
