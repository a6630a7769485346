"""Answer over HTTP."""


def __getattr__(name: str) -> object:
    """Return BentoML's service, which bentofiles of older versions name `alserve.service:service`."""
    if name == "service":
        from alserve.service.app import service  # noqa: PLC0415  slow to import

        return service
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
