"""Infernet's official Python client, run as it is in an environment of its own: the judge of the infernet dialect."""
