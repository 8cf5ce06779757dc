"""The errors of dispatch; each carries its facts as fields."""

from comptoir.kinds import context_words
from comptoir.kit.errors import Refusal

AWAY_RETRY_S = 15.0
"""When to ask again for a model whose hosts are offline: the longest pause before a worker tries to reconnect."""


class DispatchRefusal(Refusal):
    """Root of the errors of dispatch."""


class UnknownModel(DispatchRefusal):
    """No registered host offers the model."""

    def __init__(self, model: str, offered: tuple[str, ...]) -> None:
        known = ", ".join(offered[:5]) + (", …" if len(offered) > 5 else "")
        super().__init__(f"no host offers the model {model!r}" + (f"; offered now: {known}" if known else ""))
        self.model = model


class NoHostPossible(DispatchRefusal):
    """Hosts offer the model, but none could ever run this job; the message says how many each filter excluded."""


class ContextTooLong(NoHostPossible):
    """Hosts could run this job but for its size: the largest context among them is *context_tokens*.

    *input_tokens* is estimated from the request's bytes, *output_tokens* what each answer may have; *field* is the
    request's field that holds the input.
    """

    def __init__(self, *, context_tokens: int, input_tokens: int, output_tokens: int, field: str) -> None:
        words = context_words(
            context_tokens=context_tokens,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            field=field,
            about=True,
        )
        super().__init__(words)
        self.context_tokens = context_tokens
        self.field = field
        self.input_fits = input_tokens < context_tokens


class CapabilityMissing(NoHostPossible):
    """Hosts could run this job but for what it asks for: none of them has *capabilities*, and all of them say so.

    *field* is the request's field that asks for the first.
    """

    def __init__(self, model: str, capabilities: tuple[str, ...], *, field: str) -> None:
        super().__init__(f"No host offers {' and '.join(capabilities)} for the model {model!r}.")
        self.model = model
        self.capabilities = capabilities
        self.field = field


class HostsAway(DispatchRefusal):
    """Every host that could run this job has been offline for ``host_away_s`` or more; retry after *retry_after_s*."""

    def __init__(self, model: str) -> None:
        super().__init__(f"every host that could run this with the model {model!r} is offline; try again later")
        self.model = model
        self.retry_after_s = AWAY_RETRY_S


class QueueFull(DispatchRefusal):
    """Too many jobs wait already (``queue_jobs_max``); retry after *retry_after_s*."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} jobs are already waiting; try again later")
        self.retry_after_s = 5.0


class TooManyJobs(DispatchRefusal):
    """The buyer has ``jobs_per_buyer_max`` unfinished jobs."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"you have {limit} unfinished jobs, which is the limit; wait for some or cancel them")
        self.retry_after_s = 1.0


class QueueBytesFull(QueueFull):
    """The unfinished jobs of all buyers together are as large as they may be (``unfinished_bytes_max``)."""

    def __init__(self) -> None:
        DispatchRefusal.__init__(self, "the jobs that wait and run are as large as they may be; try again later")
        self.retry_after_s = 5.0


class TooManyJobBytes(TooManyJobs):
    """The buyer's unfinished jobs are together larger than ``unfinished_bytes_per_buyer_max``."""

    def __init__(self, limit_bytes: int) -> None:
        words = f"your unfinished jobs may have {limit_bytes} bytes together; wait for some or cancel them"
        DispatchRefusal.__init__(self, words)
        self.retry_after_s = 1.0


class PromptTooLong(DispatchRefusal):
    """The prompt is larger than ``prompt_bytes_max``."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the prompt is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class FramesOutOfOrder(DispatchRefusal):
    """A host sent a frame number that leaves a gap; *expected* is the next one wanted."""

    def __init__(self, *, expected: int, got: int) -> None:
        super().__init__(f"frame {got} leaves a gap: send from {expected}")
        self.expected = expected


class AnswerTooLarge(DispatchRefusal):
    """A host sent more than a job may contain."""


class BadFrame(DispatchRefusal):
    """A host sent beside a frame's text what nobody could be shown; nothing of the message is taken."""


class NoRoomForArtifact(DispatchRefusal):
    """What a job makes has no room: its buyer's files, or the job's own, are as many or as large as they may be, or
    this one is. The buyer's fault; the host did what it was asked to."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the job's buyer has no room for this file: {why}")


class BadSegment(DispatchRefusal):
    """A host's signature or running hash does not match what it sent."""


class RestartFirst(DispatchRefusal):
    """Commits went missing while this coordinator ran: its memory is newer than the database."""

    def __init__(self) -> None:
        super().__init__(
            "commits went missing while this coordinator ran, so that jobs in its memory are newer than the database: "
            "restart it, and decide then"
        )
