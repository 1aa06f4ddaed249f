"""Everything that can go wrong, as one tree; each class carries its HTTP status.

    NbExchangeError            500
    ├── Malformed              400  the request makes no sense
    ├── Unauthenticated        401  who are you?
    ├── Forbidden              403  you may not
    ├── NotFound               404  not there, or not for you: the two look the same
    ├── NotAllowed             405  this address has no such method
    ├── Conflict               409  it contradicts what is stored
    ├── AlreadyReleased        412  released before, and the caller asked for the first time only
    ├── TooLarge               413  more bytes than are allowed
    ├── UnsupportedMedia       415  an encoding that is not spoken here
    ├── OutOfRange             416  those bytes do not exist
    ├── Unprocessable          422
    │   ├── BadArchive              not a tar.gz that is safe to unpack
    │   └── DigestMismatch          other bytes arrived than were announced
    ├── TooManyRequests        429  later (`retry_after` seconds)
    ├── Damaged                500  a stored blob is not what was stored
    ├── Misconfigured          500  the operator has to mend something
    │   └── MalformedIdentity       the user handler answered nonsense
    ├── Unavailable            503  a part that we need is away (`retry_after` seconds)
    └── StoreFull              507  no space left for the bytes

The message is for the person in the notebook: it says what happened and what to do. Whatever is
secret or internal goes to the log, never into a message.
"""


class NbExchangeError(Exception):
    """Base of all; by itself it means a fault of ours."""

    status = 500


class Malformed(NbExchangeError):
    status = 400


class Unauthenticated(NbExchangeError):
    status = 401


class Forbidden(NbExchangeError):
    status = 403


class NotFound(NbExchangeError):
    status = 404


class NotAllowed(NbExchangeError):
    status = 405


class Conflict(NbExchangeError):
    status = 409


class AlreadyReleased(NbExchangeError):
    status = 412


class TooLarge(NbExchangeError):
    status = 413


class UnsupportedMedia(NbExchangeError):
    status = 415


class OutOfRange(NbExchangeError):
    """`size` is how many bytes there are."""

    status = 416

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class Unprocessable(NbExchangeError):
    status = 422


class BadArchive(Unprocessable):
    pass


class DigestMismatch(Unprocessable):
    pass


class TooManyRequests(NbExchangeError):
    status = 429

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Damaged(NbExchangeError):
    pass


class Misconfigured(NbExchangeError):
    pass


class MalformedIdentity(Misconfigured):
    pass


class Unavailable(NbExchangeError):
    """`nothing_written` where it is certain that the database did not commit the request's rows."""

    status = 503

    def __init__(
        self, message: str, retry_after: int = 5, *, nothing_written: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.nothing_written = nothing_written


class StoreFull(NbExchangeError):
    status = 507
