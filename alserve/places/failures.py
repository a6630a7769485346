"""What object stores answer, as one line: their own messages are long, and hold addresses."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

_METADATA = re.compile(
    r"http://[^/ ]+/(latest/(api/token|meta-data)|computeMetadata/|metadata/identity/)|performing token request"
)
"""What obstore asks for credentials where the environment has none: services of machines in a cloud."""

_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z -]{0,40})")
_RETRIES = re.compile(r"after (\d+) retries")

NO_CREDENTIALS = (
    "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, or "
    "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
)

NO_BUCKET = "there is no such bucket"

_KNOWN = (
    (_METADATA, errno.EACCES, NO_CREDENTIALS),
    (re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist"), errno.ENOENT, NO_BUCKET),
    (re.compile("KeyTooLong|InvalidResourceName"), errno.ENAMETOOLONG, "the name is too long for the store"),
    (
        re.compile(
            "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|AuthenticationFailed|status code: 401"
        ),
        errno.EACCES,
        "the store does not accept the credentials{code}",
    ),
    (re.compile("status code: 403"), errno.EACCES, "permission denied by the store{code}"),
    (
        re.compile("PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|status code: 301"),
        errno.EINVAL,
        "the bucket is in another region; set AWS_REGION",
    ),
    (re.compile("BadScheme"), errno.EINVAL, "the endpoint is http://; set AWS_ALLOW_HTTP=true to allow it"),
    (re.compile("Account must be specified"), errno.EINVAL, "set AZURE_STORAGE_ACCOUNT_NAME"),
    (
        re.compile("invalid path|Could not parse path|Expected string path"),
        errno.EINVAL,
        "a name that has an empty part, '.' or '..', or a control character",
    ),
    (
        re.compile("builder error|RelativeUrlWithoutBase|invalid URL", re.IGNORECASE),
        errno.EINVAL,
        "the endpoint is no URL",
    ),
    (re.compile("error sending request|dns error"), errno.EHOSTUNREACH, "the store cannot be reached{retries}"),
    (re.compile("timed out"), errno.ETIMEDOUT, "the store does not answer in time{retries}"),
)
"""(what a message holds, the error, what it means); the first that fits holds."""


@contextmanager
def failing(path: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn what obstore raises into an `OSError`, in words that hold no address and no credentials.

    Args:
        path: What is asked for.
        passed: Errors that the caller handles.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415  the extra may be missing

    try:
        yield
    except passed:
        raise
    except (BaseError, OSError, ValueError, TypeError) as error:  # the last two for names that it does not take
        raise _explain(error, path) from None


def _explain(error: Exception, path: str) -> OSError:
    if isinstance(error, OSError) and error.strerror:
        return error  # our own
    whole = str(error)
    code, retries = _CODE.search(whole), _RETRIES.search(whole)
    words = {
        "code": f" ({code[1]})" if code else "",
        "retries": f", after {retries[1]} retries" if retries else "",
    }
    if isinstance(error, FileNotFoundError):
        return _make(errno.ENOENT, NO_BUCKET if "NoSuchBucket" in whole else "no such object", path)
    for pattern, number, meaning in _KNOWN:
        if pattern.search(whole):
            return _make(number, meaning.format(**words), path)
    if status := _STATUS.search(whole):
        return _make(errno.EIO, f"the store answers {status[1].strip()}{words['code']}{words['retries']}", path)
    return _make(errno.EIO, f"the store failed ({type(error).__name__}){words['retries']}", path)


def _make(number: int, words: str, path: str) -> OSError:
    error = OSError(number, words)  # of the kind that its number stands for, such as FileNotFoundError
    error.filename = path
    return error
