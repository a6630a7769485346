"""The service against its own description: what schemathesis makes up of /openapi.json, and what must come back."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from alserve.service.openapi import describe_service

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance  # noqa: E402


@schemathesis.openapi.from_dict(describe_service()).parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_description_names(case: Any, client: httpx.Client) -> None:
    """No 5xx, no status, kind or shape that is not described; what the description forbids is refused."""
    excluded = [positive_data_acceptance]  # bytes that are an image: no schema says that
    if case.path == "/predict_batch":
        excluded.append(negative_data_rejection)  # each image has an answer or an error of its own; the whole is 200
    case.call_and_validate(base_url=str(client.base_url), excluded_checks=excluded, timeout=60)
