"""Engines: they turn a request into frames. `base` is the contract, `registry` finds engines by name."""
