"""The worker: our process on a host's machine. It imports the link, the kinds and the kit, never the coordinator."""
