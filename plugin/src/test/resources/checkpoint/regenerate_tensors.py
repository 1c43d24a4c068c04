"""Writes tensors.json: every tensor of the tiny model as the safetensors library reads it (needs torch).

Run: python regenerate_tensors.py
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open

HERE = Path(__file__).parent
MODEL = HERE.parents[4] / "examples/models/tiny-mla-v3/model.safetensors"
DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}

tensors = {}
with safe_open(MODEL, "pt") as file:
    for name in sorted(file.keys()):
        tensor = file.get_tensor(name)
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        sha = hashlib.sha256(raw).hexdigest()[:16]
        tensors[name] = dict(dtype=DTYPES[tensor.dtype], shape=list(tensor.shape), sha256=sha)
HERE.joinpath("tensors.json").write_text(json.dumps(tensors).replace('}, "', '},\n"') + "\n")
