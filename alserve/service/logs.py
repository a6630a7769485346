"""The service's log: one JSON object a line, on the standard output."""

import logging.config


def configure_logging() -> None:
    """Turn every log line of this process into JSON; requests are logged by `AccessMiddleware`, not by BentoML."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "format": "{levelname}{name}{message}",
                    "style": "{",
                    "timestamp": "time",
                    "rename_fields": {"levelname": "level", "name": "logger"},
                }
            },
            "handlers": {
                "output": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}
            },
            "root": {"level": "WARNING", "handlers": ["output"]},
            "loggers": {
                "alserve": {"level": "INFO"},
                "bentoml": {"level": "WARNING", "handlers": [], "propagate": True},
                "uvicorn.error": {"level": "WARNING", "handlers": [], "propagate": True},
            },
        }
    )
