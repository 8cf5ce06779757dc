"""A container as its owner describes it: where it is, or how to start it, and whom it admits."""

import msgspec

RUN_TIMEOUT_S = 180.0
"""Default for the longest run of a container, as in Ritual's node."""

OUTPUT_BYTES_MAX = 8 * 1024 * 1024
"""Default for the largest output of one run; the outputs of a whole chain are sent with its later stages."""


class Managed(msgspec.Struct, frozen=True, kw_only=True):
    """How to start a container with Docker or Podman; it has to listen on port 3000 inside."""

    image: str
    command: str = ""
    env: dict[str, str] = {}
    port: int
    """Port on this machine that leads to the container's 3000."""
    gpu: bool = False
    """Whether it gets all of the machine's GPUs."""
    volumes: tuple[str, ...] = ()
    """``host path:container path[:ro]``."""
    registry_user: str = ""
    registry_password: str = ""

    def __repr__(self) -> str:
        """Leave out what may be secret: environment, command and credentials."""
        return f"Managed(image={self.image!r}, port={self.port}, gpu={self.gpu})"


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One container that this host serves."""

    id: str
    url: str
    """Address without ``/service_output``; ``http://127.0.0.1:<port>`` for a managed one."""
    bearer: str = ""
    """Sent as ``Authorization: Bearer``; empty: none."""
    description: str = ""
    image: str = ""
    """Image name, visible to buyers; may be empty if not managed."""
    external: bool = True
    generates_proofs: bool = False
    allowed_ips: tuple[str, ...] = ()
    rate_requests: int = 0
    rate_period_s: float = 60.0
    accepted_payments: dict[str, int] = {}
    allowed_addresses: tuple[str, ...] = ()
    allowed_delegate_addresses: tuple[str, ...] = ()
    timeout_s: float = RUN_TIMEOUT_S
    output_bytes_max: int = OUTPUT_BYTES_MAX
    concurrency: int = 0
    """Runs at once; 0: as many as the worker has slots."""
    managed: Managed | None = None
    """How to start it; None: not managed by this worker."""

    def __repr__(self) -> str:
        """Leave out what may be secret, as a bearer is."""
        return f"ContainerSpec(id={self.id!r}, url={self.url!r}, managed={self.managed!r})"
