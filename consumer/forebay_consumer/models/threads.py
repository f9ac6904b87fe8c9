"""Torch's threads, which are the process's and no model's."""

import torch


def use_threads(count: int) -> None:
    """From now on every pass in this process uses so many."""
    torch.set_num_threads(count)
