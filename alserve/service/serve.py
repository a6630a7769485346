"""Start the HTTP service: check all that can fail at the start, then run BentoML's server."""

import os
import socket
from tempfile import TemporaryDirectory

import typer

from alserve.errors import ServiceError
from alserve.modelfile import default_model
from alserve.places.urls import Location, open_file, path_of
from alserve.service.loading import load_engine
from alserve.service.settings import ServiceSettings


def serve_model(model: Location | None, *, host: str, port: int) -> None:
    """Serve a model until the process is told to stop (Ctrl-C, SIGTERM).

    Args:
        model: The model file, a path or a URL. Default: `alserve.modelfile.default_model`.
        host: Name or address to listen on.
        port: Port to listen on, 1 to 65535.

    Raises:
        ModelError: The file is missing, no model, or of a newer format, or does not work.
        DataError: It is no URL of an object store.
        DeviceError: The device that `ALSERVE_DEVICE` asks for cannot be used.
        ServiceError: The host is unknown, or the port is in use or not allowed, or a setting cannot be used.
    """
    chosen = model or default_model()
    if path := path_of(chosen):
        chosen = path.absolute()
    settings = ServiceSettings.from_environment()
    load_engine(chosen, device=settings.device, threads=1, self_check=settings.self_check)  # raises what stops a worker
    address = _free_address(host, port)
    os.environ["ALSERVE_MODEL"] = str(chosen)  # the worker process reads it, and the hosts
    name = f"[{host}]" if ":" in host else host
    os.environ["ALSERVE_HOSTS"] = ",".join(filter(None, (os.environ.get("ALSERVE_HOSTS"), name)))

    with TemporaryDirectory(prefix="alserve-") as folder:
        os.environ.setdefault("BENTOML_HOME", folder)  # the home folder may be read-only, and BentoML writes there

        from alserve.service.app import service  # noqa: PLC0415  slow to import

        url = f"http://{name}:{port}"
        typer.echo(f"Serving {open_file(chosen)[1]} at {url} until Ctrl-C; try: curl -F image=@photo.jpg {url}/predict")
        service.serve_http(host=address, port=port)


def _free_address(host: str, port: int) -> str:
    """Turn a host name into an address, IPv4 where it has one, on which the port is free."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, (address, *_) = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except socket.gaierror:
        raise ServiceError(f"--host {host}: no such host") from None
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another --host or --port"
        ) from None
    return str(address)
