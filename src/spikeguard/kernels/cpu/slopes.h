// Backward passes with a slope that is not a surrogate of the potential alone: a given one, and the
// arctangent that ASSG sharpens.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include "blocks.h"
#include "interface.h"
#include "recurrence.h"

namespace {

template <class M>
void retrace(const Retrace& k, const Pool& pool) {
  const int64_t length = kLongest, blocks = (k.N + length - 1) / length;
  const M v_th = M(k.v_th), through = M(k.detach ? 0 : k.soft ? k.v_th : 1);
  Task shape{};  // Factor reads only its sizes
  shape.C = k.C, shape.inner = k.inner;
  parallel(pool, blocks, [&](int64_t begin, int64_t end, int64_t) {
    alignas(64) M du[kLongest], dv[kLongest], sum[kLongest], scale[kLongest];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * length, n = std::min(length, k.N - first);
      if (k.scale)
        spread(static_cast<const M*>(k.scale), first, n, k.C, k.inner, scale);
      else
        std::fill(scale, scale + n, M(1));
      std::fill(du, du + n, M(0));
      std::fill(sum, sum + n, M(0));
      Factor<M> decay(k.decay, shape, first, n);
      for (int64_t t = k.T - 1; t >= 0; --t) {
        const int64_t place = t * k.N + first;
        const M* grad = static_cast<const M*>(k.grad) + place;
        const M* h = static_cast<const M*>(k.slope) + (k.slope_steps > 1 ? place : first);
        if (!k.v) {
          SIMD for (int64_t i = 0; i < n; ++i) dv[i] = grad[i] * h[i];
        } else {
          const M* v = static_cast<const M*>(k.v) + place;
          const M* a = decay.at(t);
          if (k.soft) {
            SIMD for (int64_t i = 0; i < n; ++i)
                dv[i] = (grad[i] - du[i] * through) * h[i] + du[i];
          } else {
            SIMD for (int64_t i = 0; i < n; ++i) {
              M kept = v[i] < v_th ? du[i] : M(0);
              dv[i] = (grad[i] - du[i] * (v[i] * through)) * h[i] + kept;
            }
          }
          SIMD for (int64_t i = 0; i < n; ++i) du[i] = dv[i] * a[i];
        }
        if (k.total) {
          SIMD for (int64_t i = 0; i < n; ++i) sum[i] += dv[i];
        } else {
          M* dx = static_cast<M*>(k.dx) + place;
          SIMD for (int64_t i = 0; i < n; ++i) dx[i] = dv[i] * scale[i];
        }
      }
      if (k.total) {
        M* dx = static_cast<M*>(k.dx) + first;
        SIMD for (int64_t i = 0; i < n; ++i) dx[i] = sum[i] * scale[i];
      }
    }
  });
}

template <class M>
void sharpen(const Sharpen& k, const Pool& pool) {
  const int64_t length = 4096, blocks = (k.count + length - 1) / length;
  const M v_th = M(k.v_th), sharpness = M(k.sharpness), relaxed = M(k.relaxed), small = M(k.small);
  const M old = M(k.learns ? k.beta : 1), fresh = M(k.learns ? 1 - k.beta : 0);
  const M by = M(M_PI / 2);
  const M* v = static_cast<const M*>(k.v);
  M *mean = static_cast<M*>(k.M), *spread = static_cast<M*>(k.D);
  M* slope = static_cast<M*>(k.slope);
  parallel(pool, blocks, [=](int64_t begin, int64_t end, int64_t) {
    const int64_t last = std::min(end * length, k.count);
    SIMD for (int64_t i = begin * length; i < last; ++i) {
      M x = v[i] - v_th, distance = std::fabs(x);
      M m = old * mean[i] + fresh * distance;
      M d = old * spread[i] + fresh * std::fabs(distance - m);
      M alpha = sharpness / (m + relaxed * d + small), z = by * alpha * x;
      mean[i] = m;
      spread[i] = d;
      slope[i] = (alpha / 2) / (1 + z * z);
    }
  });
}

}  // namespace
