// The slopes of the seven surrogates, numbered as in backend.py.

#pragma once

#include <cmath>
#include <cstdint>
#include "arithmetic.h"
#include "interface.h"

namespace {

// h(x) at x = v - v_th.
template <class M>
void slope(int64_t kind, double parameter, const M* x, M* h, int64_t n) {
  const M p = M(parameter);
  switch (kind) {
    case 0: {  // triangular, p = width
      const M peak = M(1 / (parameter * parameter));
      SIMD for (int64_t i = 0; i < n; ++i) {
        M height = p - std::fabs(x[i]);
        h[i] = (height > 0 ? height : M(0)) * peak;
      }
      return;
    }
    case 1: {  // rectangular, p = width
      const M peak = M(0.5 / parameter);
      SIMD for (int64_t i = 0; i < n; ++i) h[i] = std::fabs(x[i]) <= p ? peak : M(0);
      return;
    }
    case 2: {  // arctangent, p = alpha
      const M peak = M(parameter / 2), by = M(M_PI / 2 * parameter);
      SIMD for (int64_t i = 0; i < n; ++i) {
        M z = by * x[i];
        h[i] = peak / (1 + z * z);
      }
      return;
    }
    case 3: {  // sigmoid, p = alpha
      SIMD for (int64_t i = 0; i < n; ++i) {
        M s = 1 / (1 + exponential(-(p * x[i])));
        h[i] = p * s * (1 - s);
      }
      return;
    }
    case 4: {  // Gaussian, p = sigma
      const M peak = M(1 / (std::sqrt(2 * M_PI) * parameter));
      SIMD for (int64_t i = 0; i < n; ++i) {
        M z = x[i] / p;
        h[i] = peak * exponential(M(-0.5) * (z * z));
      }
      return;
    }
    case 5: {  // SuperSpike, p = beta
      const M peak = M(parameter / 2);
      SIMD for (int64_t i = 0; i < n; ++i) {
        M z = 1 + p * std::fabs(x[i]);
        h[i] = peak / (z * z);
      }
      return;
    }
    default: {  // straight-through
      SIMD for (int64_t i = 0; i < n; ++i) h[i] = 1;
    }
  }
}

}  // namespace
