"""What starts things: sensors on closed candles, confirmed pivots and failed runs will live here."""
