"""What lies between the plugin and the service: lines that break, and proxies with their own pages.

The service says everything in JSON, with a `note` in a refusal. An answer without one comes from
something else: most often a proxy, with limits that the service does not know.
"""

import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import NewConnectionError

CHECK_ADDRESS = (
    "Check the address of the exchange service (NBEXCHANGE_URL, c.Exchange.base_service_url)."
)

HUB_PROXY_LIMIT = 300.0
"""Seconds after which JupyterHub's proxy ends a request whose body is still on its way. It is a
limit of Node.js (`requestTimeout`), which looks every thirty seconds."""

_LOOKS_EVERY = 30.0
_SLACK = 10.0

TRY_AGAIN = "Try again in a few minutes; if it stays so, contact your administrator."


def without_password(url: str) -> str:
    """The address without a name and password that it may hold."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def proxy_in_environment(url: str) -> str:
    """A sentence about the proxy that the environment names for this address; empty if none."""
    scheme = urllib.parse.urlsplit(url).scheme
    host = urllib.parse.urlsplit(url).hostname
    name = next((name for name in _variables(scheme) if os.environ.get(name)), None)
    if name is None:
        return ""
    if select_proxy(url, get_environ_proxies(url)) is None:
        return f" It is asked directly, because NO_PROXY names {host}; {name} is set."
    shown = without_password(os.environ[name])
    return (
        f" It is asked through the proxy {shown} ({name}). If it can be reached without a proxy, "
        f"set NO_PROXY={host}."
    )


def _variables(scheme: str) -> list[str]:
    lower = [f"{scheme}_proxy", "all_proxy"]
    return [name for variable in lower for name in (variable, variable.upper())]


@dataclass(frozen=True)
class Attempt:
    """How far one request came. `size` is 0 where nothing is sent."""

    url: str
    """For a person: without a password."""
    size: int
    sent: int
    seconds: float

    @property
    def is_hopeless(self) -> bool:
        """Whether the next try would be cut at the same place."""
        return self.size > 0 and self._was_cut_by_hub

    @property
    def _was_cut_by_hub(self) -> bool:
        late = HUB_PROXY_LIMIT + _LOOKS_EVERY + _SLACK
        return HUB_PROXY_LIMIT - _SLACK <= self.seconds <= late

    def connection_error(self, error: requests.RequestException, send_timeout: float) -> str:
        """What went wrong with the connection; goes on after "The exchange service at …"."""
        causes = list(_causes(error))
        if isinstance(error, requests.exceptions.ProxyError):
            return "cannot be reached."
        if isinstance(error, requests.Timeout) and not isinstance(error, requests.ConnectTimeout):
            return "does not answer in time."
        if isinstance(error, requests.ConnectTimeout) or any(
            isinstance(reason, NewConnectionError) for reason in causes
        ):
            return "cannot be reached."
        if not self.sent:
            return "closed the connection without an answer."
        if any(isinstance(reason, TimeoutError) for reason in causes):
            return f"took no more data for {send_timeout:g} seconds, {self._when}."
        return f"closed the connection {self._when}.{self._cut}"

    def unexpected_answer(self, status: int) -> str:
        """What an answer means that is not the service's own."""
        proxy = f"A proxy between this notebook and the exchange service at {self.url}"
        if status == requests.codes.request_entity_too_large and self.size:
            return (
                f"{proxy} takes no files of this size (413): it is {amount(self.size)} packed. "
                "Leave out large files, or ask your administrator to raise the limit of the proxy "
                "(nginx: client_max_body_size)."
            )
        if status == requests.codes.request_timeout and self.size:
            return f"{proxy} ended the request (408) {self._when}.{self._cut or self._faster}"
        if status in (502, 503, 504):
            reason = "it cannot reach the service, or not in time."
            return f"{proxy} answers {status}: {reason} {TRY_AGAIN}"
        if status in (401, 403, 407):
            return (
                f"{proxy} answers {status} with a page of its own, perhaps for a login. "
                f"{CHECK_ADDRESS} Or ask your administrator to let notebooks pass."
            )
        return (
            f"What answers at {self.url} is not the exchange service, perhaps a proxy: it answers "
            f"{status} with a page of its own. {CHECK_ADDRESS}"
        )

    def redirect(self, location: str | None) -> str:
        """What a redirect means."""
        parts = urllib.parse.urlsplit(without_password(location or ""))
        to = parts._replace(query="", fragment="").geturl()
        return (
            f"The address {self.url} leads to another page{f', {to}' if to else ''}, perhaps a "
            f"login page of a proxy in between. {CHECK_ADDRESS}"
        )

    @property
    def _when(self) -> str:
        return f"after {amount(self.sent)} of {amount(self.size)} and {self.seconds:.0f} seconds"

    @property
    def _cut(self) -> str:
        if not self._was_cut_by_hub:
            return ""
        return (
            " JupyterHub's proxy ends every request after 300 seconds. Leave out large files or "
            "use a faster line, or ask your administrator for an address of the exchange that does "
            "not lead through that proxy."
        )

    @property
    def _faster(self) -> str:
        return " Leave out large files, or ask your administrator to raise the limit of the proxy."


def amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it was made from."""
    while error is not None:
        yield error
        inner = getattr(error, "reason", None)
        arguments = [inner, *error.args]
        error = next(
            (argument for argument in arguments if isinstance(argument, BaseException)), None
        )
