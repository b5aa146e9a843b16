"""Wrappers that break a sound model, for the tests of the audit."""

import torch
from torch import nn


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Detached(Wrapper):
    """An encoder under no_grad."""

    def forward(self, x):
        with torch.no_grad():
            x = x * 1.0
        return self.model(x)


class Loud(Wrapper):
    """Logits times 1000 make the cross-entropy's gradient underflow; the margin's does not."""

    def forward(self, x):
        return 1000 * self.model(x)


class TrainingBatchNorm(Wrapper):
    """Puts batch norm into training mode inside forward, whatever mode the caller set."""

    def forward(self, x):
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        return self.model(x)
