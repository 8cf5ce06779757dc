"""Refusals of the identity room. Wrong credentials are the kit's `NotAuthenticated`, throttling `TooManyRequests`."""

from comptoir.kit.errors import Refusal


class IdentityRefusal(Refusal):
    """Root of this room's errors."""


class UsernameTaken(IdentityRefusal):
    """The username is in use, compared without regard to case."""

    def __init__(self, username: str) -> None:
        super().__init__(f"username: {username} is taken")
        self.username = username


class EmailTaken(IdentityRefusal):
    """The email address is in use."""

    def __init__(self, email: str) -> None:
        super().__init__(f"email: {email} is taken")
        self.email = email


class UnknownUser(IdentityRefusal):
    """No such user."""

    def __init__(self, user_id: bytes) -> None:
        super().__init__("no such user")
        self.user_id = user_id


class InvitationRefused(IdentityRefusal):
    """An invitation is unknown, used up, expired, revoked, or for something else; or one is needed and none came."""


class UnknownInvitation(IdentityRefusal):
    """No invitation has this id."""

    def __init__(self, invitation_id: bytes) -> None:
        super().__init__("no such invitation")
        self.invitation_id = invitation_id


class UnknownAccessKey(IdentityRefusal):
    """No such key, or not this owner's."""

    def __init__(self, key_id: bytes) -> None:
        super().__init__("no such key")
        self.key_id = key_id
