"""Hindsight beside what people use today: the same candles, the same machine, in turns (`make bench-peers`)."""
