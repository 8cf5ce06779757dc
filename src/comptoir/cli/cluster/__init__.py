"""Several coordinators on this machine, for development and tests: ``comptoir up --cluster N``.

Each process is a `Part` with start, stop, kill, pause and resume by its own id; all of them die with the process that
started them. `LocalCluster` puts them together. Needs the extra ``comptoir[cluster]``; Linux only.

    cluster = LocalCluster(folder, coordinators=3, fsync=False)
    await cluster.start()
    ... cluster.url, cluster.coordinators[1].kill(), cluster.postgres.pause() ...
    await cluster.stop()
"""
