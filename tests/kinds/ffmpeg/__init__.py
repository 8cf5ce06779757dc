"""The kind of films: orders, work, and what a host can be believed."""
