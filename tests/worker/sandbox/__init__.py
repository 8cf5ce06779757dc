"""The sandbox that strangers' programs run in."""
