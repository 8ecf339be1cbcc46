"""What exists: the Dagster assets, their partitions and their checks."""

import warnings

# Dagster says at each use that backfill policies are in beta; one run per range of months is what we chose them for.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy` of function")
