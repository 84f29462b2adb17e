"""The network reward: a trunk shared by heads, one head for each kind of judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

TRUNK = (256, 128)
HEAD = 64
DROPOUT = 0.1
HUMAN = "human"


class RewardNetwork(nn.Module):
    """Inputs -> 256 -> 128 (each ReLU, LayerNorm, dropout) -> a head 64 -> 1 for each judge.

    With 5 + 512 inputs and the human head alone it has 174,593 parameters. A robot's outcomes can get a head of their
    own on the same trunk: name it in ``heads``.
    """

    def __init__(self, num_inputs: int, heads: Sequence[str] = (HUMAN,)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((num_inputs, *TRUNK), TRUNK, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.LayerNorm(after), nn.Dropout(DROPOUT)]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(TRUNK[-1], HEAD), nn.ReLU(), nn.Linear(HEAD, 1)) for name in heads}
        )

    def forward(self, inputs: torch.Tensor, head: str = HUMAN) -> torch.Tensor:
        """Return rewards, (n,), of ``inputs`` (n, num_inputs) by one head."""
        reward: torch.Tensor = self.heads[head](self.trunk(inputs))
        return reward.squeeze(-1)
