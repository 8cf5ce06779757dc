"""When this process began: imported first of all, so that start-up times told to people leave nothing out."""

import time

STARTED_S = time.monotonic()
