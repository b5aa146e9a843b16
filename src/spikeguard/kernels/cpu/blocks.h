// How the elements of a layer are cut: blocks that fit in the cache, runs of one channel, and the
// threads of a pool.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include "interface.h"

namespace {

constexpr int64_t kLongest = 512;  // elements in a block

// Call f(offset, length, channel, stride) for each run of a block in which the channel is constant
// (stride 0) or increases by one per element (stride 1).
template <class F>
inline void runs(int64_t first, int64_t n, int64_t C, int64_t inner, F f) {
  if (C == 1) return f(int64_t(0), n, int64_t(0), int64_t(0));
  if (inner == 1) {
    for (int64_t at = 0, channel = first % C; at < n; channel = 0) {
      const int64_t length = std::min(n - at, C - channel);
      f(at, length, channel, int64_t(1));
      at += length;
    }
    return;
  }
  for (int64_t at = 0; at < n;) {
    const int64_t i = first + at, length = std::min(n - at, inner - i % inner);
    f(at, length, i / inner % C, int64_t(0));
    at += length;
  }
}

template <class M>
void spread(const M* table, int64_t first, int64_t n, int64_t C, int64_t inner, M* out) {
  if (inner == 1 && C < n) {  // copy the table once, then double the filled part
    const int64_t channel = first % C;
    std::rotate_copy(table, table + channel, table + C, out);
    for (int64_t done = C; done < n; done *= 2)
      std::memcpy(out + done, out, std::min(done, n - done) * sizeof(M));
    return;
  }
  runs(first, n, C, inner, [&](int64_t at, int64_t length, int64_t channel, int64_t stride) {
    if (stride)
      std::memcpy(out + at, table + channel, length * sizeof(M));
    else
      std::fill(out + at, out + at + length, table[channel]);
  });
}

// Add the products of a block to the sums of its channels.
template <class A, class B>
void gather(const A* a, const B* b, int64_t first, int64_t n, int64_t C, int64_t inner,
            double* sums) {
  runs(first, n, C, inner, [&](int64_t at, int64_t length, int64_t channel, int64_t stride) {
    if (stride) {
      double* sum = sums + channel;
      SIMD for (int64_t i = 0; i < length; ++i) sum[i] += double(a[at + i]) * double(b[at + i]);
    } else {
      double part[8] = {};  // a fixed order of summation that vectorises
      int64_t i = 0;
      for (; i + 8 <= length; i += 8)
        for (int64_t k = 0; k < 8; ++k) part[k] += double(a[at + i + k]) * double(b[at + i + k]);
      for (; i < length; ++i) part[0] += double(a[at + i]) * double(b[at + i]);
      for (double value : part) sums[channel] += value;
    }
  });
}

struct One {  // a vector of ones for gather()
  double operator[](int64_t) const { return 1; }
};
template <class A>
void gather(const A* a, One, int64_t first, int64_t n, int64_t C, int64_t inner, double* sums) {
  runs(first, n, C, inner, [&](int64_t at, int64_t length, int64_t channel, int64_t stride) {
    if (stride) {
      double* sum = sums + channel;
      SIMD for (int64_t i = 0; i < length; ++i) sum[i] += double(a[at + i]);
    } else {
      double part[8] = {};
      int64_t i = 0;
      for (; i + 8 <= length; i += 8)
        for (int64_t k = 0; k < 8; ++k) part[k] += double(a[at + i + k]);
      for (; i < length; ++i) part[0] += double(a[at + i]);
      for (double value : part) sums[channel] += value;
    }
  });
}

// Run f(first unit, last unit, thread) on every thread of the pool; the units are split evenly.
template <class F>
void parallel(const Pool& pool, int64_t units, F f) {
  struct Shared {
    const Pool* pool;
    int64_t units;
    F* f;
  } shared{&pool, units, &f};
  auto body = [](void* given) {
    auto& s = *static_cast<Shared*>(given);
    int64_t count = s.pool->thread_count(), number = s.pool->thread_number();
    (*s.f)(s.units * number / count, s.units * (number + 1) / count, number);
  };
  if (pool.parallel && pool.threads > 1 && units > 1)
    pool.parallel(body, &shared, unsigned(std::min(pool.threads, units)), 0);
  else
    f(int64_t(0), units, int64_t(0));
}

// Call f(offset, width) for the channels [0, C), 64, 32, 16, 8 or one at a time; the width is a
// compile-time constant, so that the sums of a window stay in registers.
template <class F>
inline void chunks(int64_t C, F f) {
  int64_t c = 0;
  for (; c + 64 <= C; c += 64) f(c, std::integral_constant<int, 64>());
  for (; c + 32 <= C; c += 32) f(c, std::integral_constant<int, 32>());
  for (; c + 16 <= C; c += 16) f(c, std::integral_constant<int, 16>());
  for (; c + 8 <= C; c += 8) f(c, std::integral_constant<int, 8>());
  for (; c < C; ++c) f(c, std::integral_constant<int, 1>());
}

}  // namespace
