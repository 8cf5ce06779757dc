"""Proofs: the job machine against a reference model, and bugs planted on purpose that the tests have to catch."""
