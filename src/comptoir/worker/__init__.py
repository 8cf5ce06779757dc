"""The worker: our process beside a GPU. It imports the link and the kit, never the coordinator."""
