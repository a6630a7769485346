"""Errors that a user can correct: every message says what is wrong, where, and what to do."""


class AlserveError(Exception):
    """Base of all errors of this package; the command line prints it as one line and exits with 2."""


class ImageError(AlserveError):
    """The bytes are not an image that can be used."""


class ImageKindError(ImageError):
    """The bytes are no image, or one of a kind that is not read."""


class ImageSizeError(ImageError):
    """The image has more pixels than are allowed."""


class ImageLimitError(ImageError):
    """The image takes more memory to decode than it may, or ends the process that decodes it."""


class ImageTimeoutError(ImageError):
    """The image takes longer to decode than it may."""


class ModelError(AlserveError):
    """The file is not a model that this version can run."""


class DeviceError(AlserveError):
    """The device that was asked for cannot be used."""


class DeadlineError(AlserveError):
    """The network was stopped, for it had no more time."""


class DataError(AlserveError):
    """The data set, a mask or the budget does not fit."""


class RunError(AlserveError):
    """The output folder holds something else than what is to be written there."""


class OptionError(AlserveError):
    """An option of a request is unknown or out of range."""


class OverloadError(AlserveError):
    """The service has as many requests as it can hold."""


class ServiceError(AlserveError):
    """The service cannot be started, or is not ready."""


class PackageError(AlserveError):
    """The bento cannot be made."""


def describe_fault(message: str) -> str:
    """Return Pydantic's words for what is wrong with a value so that they can follow the value's name."""
    return message.removeprefix("Value error, ").replace("Input should", "should", 1).rstrip(".")
