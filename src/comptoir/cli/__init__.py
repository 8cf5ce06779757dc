"""The command line: ``comptoir up``, ``run``, ``host`` and what else people ask a trading post.

`main` knows the commands by name only; a command's module is imported when it is called, so that help and errors come
at once. Client commands speak HTTP through `api` (standard library only) and print through `screen` (rich).
"""

import time

STARTED_S = time.monotonic()
"""When the program began, before slow imports, so that start-up times shown to people are complete."""
