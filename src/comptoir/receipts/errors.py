"""Refusals of the receipts room."""

from comptoir.kit.errors import Refusal


class ReceiptRefusal(Refusal):
    """Root of this room's errors."""


class UnknownReceipt(ReceiptRefusal):
    """No receipt of this job: not settled yet, or not a job of ours."""

    def __init__(self, job_id: bytes) -> None:
        super().__init__("no receipt for this job")
        self.job_id = job_id


class KeyTaken(ReceiptRefusal):
    """A signing key is registered for somebody else; one key has one holder for ever."""

    def __init__(self, keyid: str) -> None:
        super().__init__("this signing key is registered for another holder")
        self.keyid = keyid


class UnknownExhibit(ReceiptRefusal):
    """No evidence of this host has this id."""

    def __init__(self, exhibit: str) -> None:
        super().__init__("no such evidence of this host: 'comptoir hosts evidence HOST' lists what there is")
        self.exhibit = exhibit


class UnknownKey(ReceiptRefusal):
    """No such key in the registry."""

    def __init__(self, keyid: str) -> None:
        super().__init__(f"no signing key {keyid} in the registry")
        self.keyid = keyid


class BadRegistry(ReceiptRefusal):
    """A key registry that cannot be trusted, because it is malformed or contradicts itself."""
