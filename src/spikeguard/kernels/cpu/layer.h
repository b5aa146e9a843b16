// The recurrence of a whole layer, with its spikes or with their means over windows of an image.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>
#include "blocks.h"
#include "interface.h"
#include "recurrence.h"

namespace {

int64_t length_of(const Task& task) {  // of a block: at most 8192 potentials, 32 KiB in float32
  int64_t length = std::max<int64_t>(64, 8192 / task.T / 64 * 64);
  return std::min(length, kLongest);
}

int64_t units_of(const Task& task) {  // bands of `rows` lines in all images of a pooled layer
  return task.N / (task.rows * task.width * task.C);
}

// A layer whose spikes are pooled: a unit of work is `rows` lines of an image, which give one line
// of means; it is processed in pieces of whole windows that fit a block.
template <class X, class M>
struct Averaged {
  explicit Averaged(const Task& task)
      : k(task), line(task.width * task.C), window(task.columns * task.C),
        N(task.N / (task.rows * task.columns)),
        longest(window * std::max<int64_t>(1, length_of(task) / window)),
        buffer(task.T * longest), means(task.T * longest / task.columns) {}

  template <class F>
  void pieces(F f) {  // f(offset in the line, elements)
    for (int64_t at = 0; at < line; at += longest) f(at, std::min(longest, line - at));
  }

  void forward(int64_t unit) {
    pieces([&](int64_t at, int64_t n) {
      const int64_t m = n / k.columns;
      std::fill(means.begin(), means.begin() + k.T * m, M(0));
      for (int64_t a = 0; a < k.rows; ++a) {
        const int64_t first = (unit * k.rows + a) * line + at;
        Block<X, M>(k, first, n, buffer.data(), nullptr, n).forward();
        for (int64_t i = 0; i < k.T * m / k.C; ++i)
          chunks(k.C, [&](int64_t c, auto wide) {
            M* sum = means.data() + i * k.C + c;
            for (int64_t b = 0; b < k.columns; ++b) {
              const X* x = buffer.data() + i * window + b * k.C + c;
              for (int j = 0; j < wide; ++j) sum[j] += M(x[j]);
            }
          });
      }
      const M size = M(k.rows * k.columns);
      for (int64_t t = 0; t < k.T; ++t) {
        X* out = static_cast<X*>(k.spikes) + t * N + unit * (line / k.columns) + at / k.columns;
        SIMD for (int64_t i = 0; i < m; ++i) out[i] = X(means[t * m + i] / size);
      }
    });
  }

  void backward(int64_t unit, M* potentials, double* sums, double* d_decay, double* d_gate) {
    pieces([&](int64_t at, int64_t n) {
      const int64_t m = n / k.columns;
      const M size = M(k.rows * k.columns);
      for (int64_t t = 0; t < k.T; ++t) {
        const X* from = static_cast<const X*>(k.d_spikes) + t * N + unit * (line / k.columns) +
                        at / k.columns;
        for (int64_t i = 0; i < m / k.C; ++i)
          chunks(k.C, [&](int64_t c, auto wide) {
            X share[wide];
            for (int j = 0; j < wide; ++j) share[j] = X(M(from[i * k.C + c + j]) / size);
            for (int64_t b = 0; b < k.columns; ++b)
              std::copy(share, share + wide, buffer.data() + t * n + i * window + b * k.C + c);
          });
      }
      for (int64_t a = 0; a < k.rows; ++a) {
        const int64_t first = (unit * k.rows + a) * line + at;
        Block<X, M>(k, first, n, nullptr, buffer.data(), n)
            .backward(potentials, sums, d_decay, d_gate);
      }
    });
  }

  const Task& k;
  const int64_t line, window, N, longest;
  std::vector<X> buffer;
  std::vector<M> means;
};

template <class X, class M>
void forward(const Task& task, const Pool& pool) {
  if (task.rows) {
    return parallel(pool, units_of(task), [&](int64_t begin, int64_t end, int64_t) {
      Averaged<X, M> averaged(task);
      for (int64_t unit = begin; unit < end; ++unit) averaged.forward(unit);
    });
  }
  const int64_t length = length_of(task), blocks = (task.N + length - 1) / length;
  parallel(pool, blocks, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t b = begin; b < end; ++b)
      Block<X, M>(task, b * length, std::min(length, task.N - b * length)).forward();
  });
}

template <class X, class M>
void backward(const Task& task, const Pool& pool) {
  const int64_t length = length_of(task), blocks = (task.N + length - 1) / length;
  const int64_t sums = task.sums ? 2 * task.C : 0, table = task.T * task.C;
  const int64_t decays = task.d_decay ? table : 0, gates = task.d_gate ? table : 0;
  const int64_t each = sums + decays + gates;
  std::vector<double> tables(std::max<int64_t>(1, pool.threads) * each, 0.0);
  const auto averaged = [&](int64_t begin, int64_t end, int64_t thread) {
    Averaged<X, M> layer(task);
    std::vector<M> potentials(task.T * layer.longest * (task.smooth ? 2 : 1));
    double* own = tables.data() + thread * each;
    for (int64_t unit = begin; unit < end; ++unit)
      layer.backward(unit, potentials.data(), own, own + sums, own + sums + decays);
  };
  const auto plain = [&](int64_t begin, int64_t end, int64_t thread) {
    std::vector<M> potentials(task.T * length * (task.smooth ? 2 : 1));
    double* own = tables.data() + thread * each;
    for (int64_t b = begin; b < end; ++b)
      Block<X, M>(task, b * length, std::min(length, task.N - b * length))
          .backward(potentials.data(), own, own + sums, own + sums + decays);
  };
  if (task.rows)
    parallel(pool, units_of(task), averaged);
  else
    parallel(pool, blocks, plain);
  for (int64_t thread = 0; thread < std::max<int64_t>(1, pool.threads); ++thread) {
    const double* own = tables.data() + thread * each;
    for (int64_t i = 0; i < sums; ++i) task.sums[i] += own[i];
    for (int64_t i = 0; i < decays; ++i) task.d_decay[i] += own[sums + i];
    for (int64_t i = 0; i < gates; ++i) task.d_gate[i] += own[sums + decays + i];
  }
}

}  // namespace
