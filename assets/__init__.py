"""What exists: the Dagster assets, their partitions and their checks."""

import warnings

# Dagster says at each use that backfill policies and mappings of partitions are in beta. One run per range of months is
# what we chose the first for; the second only draws the line from a market's order book to the streams that see it.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy` of function")
warnings.filterwarnings("ignore", message="Class `MultiPartitionMapping` is currently in beta")
