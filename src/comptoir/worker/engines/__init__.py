"""Engines: what turns a request into frames. `base` is the contract, `registry` finds them by name."""
