"""Echo: a toy kind. It says a text again, so many times, and is sold by the kilobyte that arrives.

It lives here and not in the package, to show that a kind is one folder and one line of registration
(docs/adding/a-kind.md): ``COMPTOIR_KINDS=tests.kinds.echo:Echo`` for the coordinator, ``--kind tests.kinds.echo:Echo``
for the worker.
"""

import msgspec

from comptoir.kinds import Kind, Unit

BYTE = Unit("byte", "byte", "bytes", 1_000, "kilobyte")

TIMES_MAX = 100_000


class EchoBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is bought."""

    text: str
    times: int = 1

    def output(self) -> str:
        """Return the whole output."""
        return self.text * self.times


read = msgspec.json.Decoder(EchoBody).decode


class Echo(Kind):
    """A text, said again."""

    name = "echo"
    output = BYTE
    noun = "echo"
    output_over_max = 0

    def check(self, body: bytes) -> str:
        """Say what is wrong with a body."""
        try:
            asked = read(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f'must look like {{"text": "Hello ", "times": 3}}: {error}'
        if not asked.text or not 1 <= asked.times <= TIMES_MAX:
            return f"must have a text, and times from 1 to {TIMES_MAX}"
        return ""

    def output_max(self, body: bytes) -> int:
        """Return how many bytes the output has."""
        asked = read(body)
        return len(asked.text.encode()) * asked.times
