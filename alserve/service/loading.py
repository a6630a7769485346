"""Load a model for the service, and show that it works where it runs."""

from alserve.places.urls import Location
from alserve.runtime.engine import Engine
from alserve.runtime.selfcheck import try_drawn_image


def load_engine(path: Location, *, device: str, threads: int, self_check: bool = True) -> Engine:
    """Load a model, and predict a drawn image, which makes the next prediction quick.

    Args:
        path: The model file, or its URL.
        device: See `alserve.predictor.load`.
        threads: Threads inside one network call.
        self_check: Compare the model with the answers of the trained network that it carries.

    Raises:
        ModelError: The file is missing, no model, or of a newer format, or gives something else than it should.
        DeviceError: The device cannot be used.
    """
    engine = Engine(path, device=device, threads=threads, self_check=self_check)
    try_drawn_image(engine.run, engine.spec, engine.where)
    return engine
