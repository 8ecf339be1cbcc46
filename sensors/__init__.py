"""What starts things: sensors on closed candles and confirmed pivots, and those that call a person."""
