"""Certified radii: lower bounds on the robust accuracy of a smoothed classifier."""

from __future__ import annotations

from spikeguard.certification.bounds import (
    Certificate,
    GaussianCertificate,
    RateCertificate,
    clopper_pearson,
    least_draws,
)
from spikeguard.certification.certify import Sampling, attacked, certified, smoothing_of
from spikeguard.certification.result import Certification, Radius

__all__ = [
    "Certificate",
    "Certification",
    "GaussianCertificate",
    "Radius",
    "RateCertificate",
    "Sampling",
    "attacked",
    "certified",
    "clopper_pearson",
    "least_draws",
    "smoothing_of",
]
