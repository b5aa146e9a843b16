"""Frequency encoding (FEEL-SNN): low-pass filtered images with fewer frequencies at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["FrequencyEncoding"]


class FrequencyEncoding(nn.Module):
    r"""Filter the image with a low-pass filter that narrows with every step.

    .. math::
        x[t] = \left|\mathcal F^{-1}\big(M_{r[t]} \odot \mathcal F(x)\big)\right|, \qquad
        M_r(m, n) = 1 \text{ if } |m|, |n| \le r \text{, else } 0

    over the spatial frequencies (m, n) in cycles per image. At steps where r includes the highest
    frequency the image is unchanged. Without ``widths``, r starts at half the image size h and
    decreases by 2 per step, or by h / T if that is less: the published 16, 14, ..., 2 for 32 x 32
    and T = 8; 16, 14, 12, 10 for T = 4; 32, 30, 28, 26 for 64 x 64; 4, 3, 2, 1 for 8 x 8 and T = 4.
    The gradient is exact: attacks differentiate through the filter. As in the public code, the
    pixels are not normalised.

    Args:
        widths: Half-widths r of the filter, one per step, integers >= 0; None is the rule above.
        absolute: Take the absolute value, as the public code does; the formula in the paper does
            not, and pixels next to an edge can then be below 0.

    Raises:
        ValueError: If a width is negative; at a call, if x is not an image [B, C, H, W] or the
            number of widths is not T.

    Source: Xu et al., "FEEL-SNN: robust spiking neural networks with frequency encoding and
        evolutionary leak factor", NeurIPS 2024, Eqs. 7 to 11.
    """

    constant = False
    normalised = False

    def __init__(self, widths: Sequence[int] | None = None, absolute: bool = True):
        super().__init__()
        if widths is not None and (not widths or min(widths) < 0):
            raise ValueError(
                f"FrequencyEncoding: widths are whole numbers >= 0, one a step, got {widths}."
            )
        self.widths = None if widths is None else tuple(widths)
        self.absolute = absolute

    def forward(self, x: Tensor, T: int) -> Tensor:
        """Map [B, C, H, W] in [0, 1] to [T, B, C, H, W]."""
        if x.ndim != 4:
            raise ValueError(
                f"FrequencyEncoding: filters images [B, C, H, W], got {list(x.shape)}."
            )
        height, width = x.shape[2:]
        widths = self.half_widths(T, min(height, width))
        if not len(x):
            return x.expand(T, *x.shape)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        spectrum = torch.fft.rfft2(precise)
        rows = torch.fft.fftfreq(height, 1 / height, device=x.device).abs()
        columns = torch.fft.rfftfreq(width, 1 / width, device=x.device)
        steps = []
        for r in widths:
            if r >= max(height, width) // 2:
                steps.append(x)
                continue
            window = (rows <= r)[:, None] & (columns <= r)
            seen = torch.fft.irfft2(spectrum * window, s=(height, width))
            steps.append((seen.abs() if self.absolute else seen).to(x.dtype))
        return torch.stack(steps)

    def half_widths(self, T: int, size: int) -> tuple[int, ...]:
        """Return r for each of T steps, for images of ``size`` pixels per side."""
        if self.widths is None:
            half = size / 2
            return tuple(math.ceil(half - t * min(2.0, half / T)) for t in range(T))
        if len(self.widths) != T:
            raise ValueError(
                f"FrequencyEncoding: {len(self.widths)} widths for T = {T} steps; give one a step."
            )
        return self.widths

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f"widths={self.widths}, absolute={self.absolute}"
