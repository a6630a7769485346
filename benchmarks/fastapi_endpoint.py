"""What one would write by hand to serve a model's masks: FastAPI, OpenCV, ONNX Runtime; nothing of alserve's service.

python -m uvicorn fastapi_endpoint:app --app-dir benchmarks, with the model file in $MODEL.
"""

import json
import os
from typing import Annotated

import cv2
import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, File, HTTPException, Response

app = FastAPI()
session = ort.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
spec = json.loads(session.get_modelmeta().custom_metadata_map["alserve"])


@app.get("/readyz")
def readyz() -> str:
    """Say that the model is loaded."""
    return "ready"


@app.post("/segment")
def segment(image: Annotated[bytes, File()]) -> Response:
    """Answer the mask of an image as PNG, in one of FastAPI's threads."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise HTTPException(400, "not an image")
    height, width = pixels.shape[:2]
    scale = spec["short_side"] / min(height, width)
    small = cv2.resize(
        pixels, [round(side * scale / 32) * 32 for side in (width, height)], interpolation=cv2.INTER_AREA
    )
    _, _, probability = session.run(None, {"images": small[None]})
    mask = cv2.resize(probability[0], (width, height)) > spec["threshold"]
    return Response(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes(), media_type="image/png")
