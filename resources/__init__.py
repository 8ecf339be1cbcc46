"""What the assets touch: the warehouse, the source of candles, the scope and progress of a run."""
