// Average pooling over windows that tile an image, forward and backward.

#pragma once

#include <algorithm>
#include <cstdint>
#include "arithmetic.h"
#include "blocks.h"
#include "interface.h"

namespace {

template <class X, class M>  // means are computed in M and rounded once, as torch does
void pool_windows(const Windows& k, const Pool& pool) {
  const M size = M(k.rows * k.columns);
  const int64_t line = k.width * k.columns * k.C;  // elements in a line of the image
  parallel(pool, k.images * k.height, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t row = begin; row < end; ++row) {
      const X* from = static_cast<const X*>(k.x) + row * k.rows * line;
      X* out = static_cast<X*>(k.out) + row * k.width * k.C;
      for (int64_t j = 0; j < k.width; ++j, out += k.C, from += k.columns * k.C) {
        chunks(k.C, [&](int64_t c, auto wide) {
          M sum[wide] = {};
          for (int64_t a = 0; a < k.rows; ++a)
            for (int64_t b = 0; b < k.columns; ++b) {
              const X* x = from + a * line + b * k.C + c;
              for (int i = 0; i < wide; ++i) sum[i] += M(x[i]);
            }
          for (int i = 0; i < wide; ++i) out[c + i] = X(sum[i] / size);
        });
      }
    }
  });
}

template <class X, class M>
void unpool_windows(const Windows& k, const Pool& pool) {
  const M size = M(k.rows * k.columns);
  const int64_t line = k.width * k.columns * k.C;
  parallel(pool, k.images * k.height, [&](int64_t begin, int64_t end, int64_t) {
    for (int64_t row = begin; row < end; ++row) {
      const X* x = static_cast<const X*>(k.x) + row * k.width * k.C;
      X* out = static_cast<X*>(k.out) + row * k.rows * line;
      for (int64_t j = 0; j < k.width; ++j, x += k.C, out += k.columns * k.C) {
        chunks(k.C, [&](int64_t c, auto wide) {
          X share[wide];
          for (int i = 0; i < wide; ++i) share[i] = X(M(x[c + i]) / size);
          for (int64_t a = 0; a < k.rows; ++a)
            for (int64_t b = 0; b < k.columns; ++b)
              std::copy(share, share + wide, out + a * line + b * k.C + c);
        });
      }
    }
  });
}

}  // namespace
