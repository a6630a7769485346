"""Which hosts the service answers for: a page of another site must not use it through the browser of whoever reads it.

Two ways lead there. A form or script of another site sends a request, with that site in the header Origin. Or a name of
that site is made to resolve to this machine (DNS rebinding), and stands in the header Host. Without a token, which no
other site knows, both headers must name this service.
"""

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers

ANY = "*"
"""Among the hosts: every name is right."""

_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]]+))(?::\d+)?")


def host_error(headers: Headers, address: str, hosts: Collection[str]) -> str | None:
    """Return what is wrong with the headers Host and Origin.

    Right are localhost, loopback addresses, the address that the connection came to, and `hosts`. An origin is right
    where it is the host itself, port included, or one of `hosts`.

    Args:
        headers: Of the request.
        address: Of this machine, that the connection came to.
        hosts: Further names, in lower case, without port.

    Returns:
        One line that names the setting, or None where both are right.
    """
    host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
    if ANY in hosts:
        return None
    if (name := host_name(host)) not in hosts and not _is_local(name, address):
        return _refusal("host", host)
    site = origin.partition("://")[2]
    if origin and site != host and host_name(site) not in hosts:
        return _refusal("origin", origin)
    return None


def _refusal(header: str, given: str) -> str:
    return (
        f"requests for or from the {header} {given[:80]!r} are not answered; "
        "name it in ALSERVE_HOSTS where the service is started, or set ALSERVE_TOKEN"
    )


def host_name(authority: str) -> str:
    """Return the host of HOST[:PORT], without brackets; nothing where it is none."""
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2]) if found else ""


def _is_local(name: str, address: str) -> bool:
    asked = _parse(name)
    return name == "localhost" or (asked is not None and (asked.is_loopback or asked == _parse(address)))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address, IPv4 where an IPv6 socket names it so; None where it is none."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
