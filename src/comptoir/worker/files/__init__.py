"""The files of jobs on a host: inputs come under the job's lease, artifacts go, and all are erased with it.

Owns the folder of each lease whose kind has files. Its invariant: nothing of a buyer's is on the disk once the engine
of its job has ended, whichever way, or, after kill -9, once a worker has started again. Bytes and seconds throughout.
"""

from comptoir.worker.files.service import GIB, INPUTS_BYTES_MAX, HostFiles, InputRules, LeaseFiles

__all__ = ["GIB", "INPUTS_BYTES_MAX", "HostFiles", "InputRules", "LeaseFiles"]
