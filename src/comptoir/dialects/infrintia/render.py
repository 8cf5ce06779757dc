"""From the core's values to Infrintia's: ids, times, credits and state names. Pure."""

from collections.abc import Sequence

from comptoir.dialects.infrintia import wire
from comptoir.hosts import Host, ModelSummary
from comptoir.jobs import ANSWER_LOST, JobRow, JobState
from comptoir.kinds import bought
from comptoir.kit.clock import iso_utc
from comptoir.kit.ids import public
from comptoir.kit.money import price_to_usd_per_token, to_credits
from comptoir.link import ModelOffer

WORDS = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "failed",
}
"""Published names of states; ``cancelled`` is ours, and an expired job counts as failed."""

STATES = {word: tuple(state.value for state, said in WORDS.items() if said == word) for word in set(WORDS.values())}
"""The states that a name in the filter stands for."""


def model(summary: ModelSummary) -> wire.InfrintiaModel:
    """Render one model."""
    price = price_to_usd_per_token(summary.min_price_out_uusd_per_mtok)
    return wire.InfrintiaModel(summary.name, summary.available_hosts, price, summary.max_tokens)


def host_card(host: Host, offers: Sequence[ModelOffer]) -> wire.HostCard:
    """Render one host for the public; with the lowest of its prices, because this API has one price for all models."""
    row = host.row
    price = min((offer.price_out_uusd_per_mtok for offer in host.offers), default=0)
    return wire.HostCard(
        public("host", row.id),
        row.gpu,
        host.status,
        [offer.name for offer in offers],
        price_to_usd_per_token(price),
        row.backend,
    )


def job_line(row: JobRow) -> wire.JobLine:
    """Render one line of a list."""
    return wire.JobLine(
        public("job", row.id),
        bought(row.model, row.stages),
        WORDS[JobState(row.state)],
        to_credits(row.cost_uusd),
        iso_utc(row.created_ms),
    )


def job_error(state: JobState, *, code: str, message: str) -> wire.JobError | None:
    """Render why a job failed or has no answer any more, or None."""
    if code != ANSWER_LOST and state not in (JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED):
        return None
    return wire.JobError(code or state.value, message)
