from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "safetensors", "peft", "numpy", "huggingface_hub")


@pytest.mark.parametrize(
    "module", ["manifest", "registry", "publish", "checkpoint", "backbone_ref", "errors"]
)
def test_the_half_that_the_gateway_reads_loads_no_torch(module: str) -> None:
    code = f"import sys, model_store.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
