"""The checkpoint of each load as a folder, made without a network."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from forebay_local import models
from forebay_local.java import cache_folder

_VIT: Final = "bench-vit-tiny-1"


def checkpoint(load: str) -> str:
    """The folder of a load's model, made the first time; empty for T3, which has none."""
    if load == "T1":
        return str(models.build("embeddings"))
    return str(_vit_tiny()) if load == "T2" else ""


def _vit_tiny() -> Path:
    """ViT-tiny with random weights: they cost what trained ones cost."""
    folder = cache_folder() / "models" / _VIT
    if not folder.is_dir():
        import torch
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=192,
            num_hidden_layers=12,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=224,
            patch_size=16,
            initializer_range=0.1,  # answers that differ enough from each other to be checked
            id2label={number: f"LABEL_{number}" for number in range(10)},
            label2id={f"LABEL_{number}": number for number in range(10)},
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / _VIT
            ViTForImageClassification(config).save_pretrained(made)
            ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(made)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
    return folder
