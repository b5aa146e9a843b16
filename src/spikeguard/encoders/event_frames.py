"""EventFrames: the frames of an event camera as input currents, one frame per time step."""

from __future__ import annotations

from torch import Tensor, nn

from spikeguard.encoders.input_space import InputSpace

__all__ = ["EventFrames"]


class EventFrames(nn.Module):
    """Frame t of the input is the input current of step t: [B, T, C, H, W] to [T, B, C, H, W].

    Values are passed on unchanged, so an attack differentiates through it exactly. The frames are
    not normalised: a cell without an event gives no current.

    Args:
        high: Largest value of a frame, > 0; ``math.inf`` for counts without a bound.
        whole: The recorded frames hold only integers: 0 and 1 where ``high`` is 1.
        exclusive: At most one polarity of a cell (t, h, w) is above 0.

    Raises:
        ValueError: If ``high`` is not above 0; at a call, if x does not have T frames.

    Source: the input of directly trained SNNs on event data, such as Fang et al., "Deep residual
        learning in spiking neural networks", NeurIPS 2021.
    """

    constant = False
    normalised = False

    def __init__(self, high: float = 1.0, whole: bool = True, exclusive: bool = False) -> None:
        super().__init__()
        self.space = InputSpace(high=high, whole=whole, temporal=True, exclusive=exclusive)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [B, T, C, H, W] to [T, B, C, H, W] without copying."""
        if x.ndim != 5 or x.shape[1] != T:
            raise ValueError(
                f"EventFrames: takes frames [B, T, C, H, W] with T = {T}, got {list(x.shape)}."
            )
        return x.transpose(0, 1)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        space = self.space
        return f"high={space.high:g}, whole={space.whole}, exclusive={space.exclusive}"
