// Batch normalisation in training: the sums that it needs, and its backward pass.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>
#include "arithmetic.h"
#include "blocks.h"
#include "interface.h"

namespace {

// sums [2, C]: of x and of x * x over [steps, N]; in double, precise enough for the variance.
template <class X>
void moments(const Task& task, const Pool& pool) {
  const int64_t length = 4096, count = task.S * task.N, blocks = (count + length - 1) / length;
  std::vector<double> tables(std::max<int64_t>(1, pool.threads) * 2 * task.C, 0.0);
  const X* x = static_cast<const X*>(task.x);
  parallel(pool, blocks, [&](int64_t begin, int64_t end, int64_t thread) {
    double* own = tables.data() + thread * 2 * task.C;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * length, n = std::min(length, count - first);
      gather(x + first, One(), first, n, task.C, task.inner, own);
      gather(x + first, x + first, first, n, task.C, task.inner, own + task.C);
    }
  });
  for (int64_t i = 0; i < int64_t(tables.size()); ++i) task.sums[i % (2 * task.C)] += tables[i];
}

template <class X, class M>
void combine(const Combine& task, const Pool& pool) {
  const int64_t length = kLongest, count = task.steps * task.N;
  const M* g = static_cast<const M*>(task.g);
  const X* x = static_cast<const X*>(task.x);
  const M *a = static_cast<const M*>(task.a), *b = static_cast<const M*>(task.b),
          *c = static_cast<const M*>(task.c);
  X* dx = static_cast<X*>(task.dx);
  parallel(pool, (count + length - 1) / length, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * length, n = std::min(length, count - first);
      runs(first, n, task.C, task.inner,
           [&](int64_t at, int64_t size, int64_t channel, int64_t stride) {
             const M *gi = g + first + at, *ai = a + channel, *bi = b + channel, *ci = c + channel;
             const X* xi = x + first + at;
             X* out = dx + first + at;
             if (stride) {
               SIMD for (int64_t i = 0; i < size; ++i)
                   out[i] = X(ai[i] * gi[i] + (bi[i] * M(xi[i]) + ci[i]));
             } else {
               const M a0 = *ai, b0 = *bi, c0 = *ci;
               SIMD for (int64_t i = 0; i < size; ++i)
                   out[i] = X(a0 * gi[i] + (b0 * M(xi[i]) + c0));
             }
           });
    }
  });
}

}  // namespace
