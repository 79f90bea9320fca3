"""Adapter folders that the gateway can list. Their tensors are no tensors: the gateway never opens them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model_store.manifest import (
    MANIFEST_FILE,
    REQUIRED_FILES,
    AdapterManifest,
    BackboneRef,
    GroupManifest,
)

FINGERPRINT = "ab" * 32


def publish(root: Path, domain: str, version: int, *, fingerprint: str = FINGERPRINT) -> Path:
    """Put one version of a domain's adapter under `root`."""
    folder = root / domain / str(version)
    folder.mkdir(parents=True)
    for name in REQUIRED_FILES:
        (folder / name).write_bytes(name.encode())
    manifest = AdapterManifest(
        domain=domain,
        version=version,
        description=f"Experts for {domain}.",
        groups={
            "temporal": GroupManifest(targets=["q_proj", "k_proj"], experts=4, rank=8, lora_alpha=16.0),
            "spatial": GroupManifest(targets=["fc1"], experts=3, rank=2, lora_alpha=4.0),
        },
        fusion_alpha=0.6,
        trainable_parameters=1234,
        trainable_share=0.05,
        backbone=BackboneRef(name="tiny", fingerprint=fingerprint),
        training={"clips": 2000},
        quality={"rouge_l": 0.9 + version / 100},
        files={name: hashlib.sha256(name.encode()).hexdigest() for name in REQUIRED_FILES},
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return folder
