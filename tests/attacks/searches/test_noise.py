"""UniformNoise: one wrong draw is enough, also where its margin is that of a right one."""

import torch
from torch import nn

from spikeguard.attacks import Linf, UniformNoise


class Ties(nn.Module):
    """Logits that are equal in every draw; argmax takes the first class."""

    def __init__(self, *logits):
        super().__init__()
        self.logits, self.seen = logits, []

    def forward(self, x):
        self.seen.append(x)
        return torch.tensor([self.logits[len(self.seen) - 1]]) + 0 * x[:, :1]


def test_a_wrong_tie_is_kept_after_a_right_answer_of_the_same_loss():
    model = Ties((0.2, 0.2 + 2**-20), (0.5, 0.5), (0.1, 0.9))

    def rounded(logits, y):
        """The margin to four digits: 0 for the first two draws."""
        return (1e4 * (logits[:, 0] - logits[:, 1])).round() / 1e4

    x = torch.full((1, 4), 0.5)
    found = UniformNoise(Linf(0.1), draws=3, loss=rounded)(model, x, torch.tensor([1]))
    assert torch.equal(found, model.seen[1])
