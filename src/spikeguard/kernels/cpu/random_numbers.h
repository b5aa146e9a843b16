// Uniform numbers of many streams of splitmix64; splitmix.py is the definition.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include "blocks.h"
#include "interface.h"

namespace {

inline uint64_t splitmix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

inline float unit(uint64_t bits) { return float(int32_t(bits & 0xFFFFFF)) * 0x1p-24f; }

void draw(const Draws& k, const Pool& pool) {
  const int64_t length = 4096, blocks = (k.count + length - 1) / length;
  parallel(pool, k.streams * blocks, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t stream = b / blocks, from = b % blocks * length;
      const int64_t n = std::min(length, k.count - from), place = stream * k.count + from;
      const uint64_t golden = 0x9E3779B97F4A7C15u;
      const uint64_t start = uint64_t(static_cast<const int64_t*>(k.state)[stream]) +
                             uint64_t(k.first + from + 1) * golden;
      float* numbers = static_cast<float*>(k.numbers) + place;
      if (!k.angle) {
        SIMD for (int64_t i = 0; i < n; ++i)
            numbers[i] = unit(splitmix(start + uint64_t(i) * golden) >> 40);
        continue;
      }
      float* angle = static_cast<float*>(k.angle) + place;
      SIMD for (int64_t i = 0; i < n; ++i) {
        const uint64_t bits = splitmix(start + uint64_t(i) * golden);
        numbers[i] = 1.0f - unit(bits >> 40);
        angle[i] = unit(bits >> 8) * float(2 * M_PI);
      }
    }
  });
}

}  // namespace
