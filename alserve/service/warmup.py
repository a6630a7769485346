"""The first prediction of a service: it makes the next one quick, and shows that the model works where it runs."""

from alserve.runtime.engine import Engine
from alserve.runtime.selfcheck import try_drawn_image


def warm_up(engine: Engine) -> None:
    """Predict a drawn image at the working size and check what comes out.

    Args:
        engine: The loaded model.

    Raises:
        ModelError: The outputs have other shapes than they should, or are not finite, or no probabilities.
        DeviceError: The device gave up.
    """
    try_drawn_image(engine.run, engine.spec, engine.where)
