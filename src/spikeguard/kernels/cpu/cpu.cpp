// The membrane recurrence over all T steps, forward and backward, for the CPU. reference.py is the
// definition; the arithmetic here is the same operation by operation (compiled without
// contraction), so that the forward pass is bit-equal.
//
// A layer is [T, N] elements; the channel of element i is (i / inner) % C. Elements are processed
// in blocks: the potentials of a block fit in the cache for all T steps, so each tensor is read
// once. The interface is plain C with data pointers: it does not depend on torch's ABI and links no
// OpenMP runtime (the caller passes the entry points of the runtime that torch has loaded).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#define SIMD _Pragma("GCC ivdep")
#define EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {

struct Side {  // decay or gate: absent, a table over (step, channel), or one value per element
  const void* data;
  int64_t per_step, per_channel;  // strides in elements; 0 for a shared value
  int64_t full;                   // 1: data is [T or 1, N] with stride per_step
};

struct Task {
  int64_t T, S, N, C, inner;   // S: steps stored in x, T or 1 (one step, repeated T times)
  const void* x;               // [S, N]
  const void *scale, *shift;   // [C]: the current is scale * x + shift; null: it is x
  Side decay, gate;
  const void* noise;           // [T, N] or null
  double v_th;
  int64_t soft, detach, surrogate;
  double p;                    // the surrogate's parameter
  int64_t smooth;              // 1: probabilities for spikes, the integral of a Gaussian surrogate
  void *spikes, *v;            // out [T, N]; v may be null
  const void *d_spikes, *d_v;  // in [T, N], may be null
  void* dx;                    // out [S, N] in the precision of v or of x; may be null
  int64_t dx_is_membrane;
  double* sums;                // out [2, C]: sums of g and of g * x, g = dL/d current; may be null
  double *d_decay, *d_gate;    // out [T, C] tables; may be null
  void *d_decay_full, *d_gate_full, *d_noise;  // out [T, N]; may be null
  int64_t rows, columns, width;  // spikes and d_spikes are means over a window of an image of this
};                               // width, channels innermost; rows 0: they are [T, N], no window

struct Combine {  // dx = a[c] * g + b[c] * x + c[c]
  int64_t steps, N, C, inner;
  const void *g, *x;
  void* dx;
  const void *a, *b, *c;
};

struct Retrace {  // backward pass of the recurrence, given its potentials and a slope for ds/dv
  int64_t T, N, C, inner;
  const void *v, *slope, *grad;  // in [T, N]; slope is [1, N] if slope_steps is 1; v null: no path
  int64_t slope_steps;           // through time, dx = grad * slope
  Side decay;
  double v_th;
  int64_t soft, detach;
  const void* scale;             // [C]: factor on the current before the recurrence; or null
  void* dx;                      // out [T, N]; [1, N] if total
  int64_t total;                 // 1: dx is the sum over T
};

struct Sharpen {  // moments of |v - v_th|, updated if `learns`, and the arctangent slope from them
  int64_t count;
  const void* v;
  void *M, *D, *slope;
  double v_th, sharpness, beta, relaxed, small;
  int64_t learns;
};

struct Windows {  // average pooling, channels innermost; the windows tile the image
  int64_t images, height, width, C;  // of the means
  int64_t rows, columns;             // of a window
  const void* x;
  void* out;  // pool: means of x; unpool: x / window size, where x is dL/d means
};

struct Draws {  // uniform numbers of many streams of splitmix64
  int64_t streams, count, first;  // numbers `first` to `first + count - 1` of every stream
  const void* state;              // int64 [streams]
  void *numbers, *angle;  // out, float32 [streams, count]: u and nothing; or 1 - u and 2 pi w
};

struct Pool {  // entry points of the OpenMP runtime that torch has loaded; parallel may be null
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread_number)();
  int (*thread_count)();
  int64_t threads;
};

}  // extern "C"

namespace {

constexpr int64_t kLongest = 512;  // elements in a block

struct bfloat16 {
  uint16_t bits;
  operator float() const {
    uint32_t wide = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
  bfloat16() = default;
  explicit bfloat16(float value) {  // to nearest, ties to even
    uint32_t wide;
    std::memcpy(&wide, &value, 4);
    uint16_t rounded = uint16_t((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16);
    bits = value != value ? uint16_t(0x7FC0) : rounded;
  }
};

inline float fused(float a, float x, float b) {
#ifdef __FMA__
  return __builtin_fmaf(a, x, b);  // as torch's batch normalisation in evaluation mode
#else
  return a * x + b;
#endif
}
inline double fused(double a, double x, double b) {
#ifdef __FMA__
  return __builtin_fma(a, x, b);
#else
  return a * x + b;
#endif
}

// exp to about 1 ulp, in a form that compilers vectorise (Cephes' reduction and polynomial).
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  float n = std::floor(x * 1.44269504088896341f + 0.5f);
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  int32_t power = (int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, 4);
  return y * scale;
}
inline double exponential(double x) { return std::exp(x); }

// The standard normal distribution function to about 2 ulp of 1 (Cephes' polynomials for erf and
// erfc), in a form that compilers vectorise: all branches are computed and one is taken.
inline float normal_cdf(float z) {
  const float t = z * 0.707106781186547524f, square = t * t, a = std::fabs(t);
  float near = 7.853861353153693e-5f;
  near = near * square - 8.010193625184903e-4f;
  near = near * square + 5.188327685732524e-3f;
  near = near * square - 2.685381193529856e-2f;
  near = near * square + 1.128358514861418e-1f;
  near = near * square - 3.761262582423300e-1f;
  near = near * square + 1.128379165726710e+0f;
  const float inverse = 1 / std::max(a, 1.0f), y = inverse * inverse;
  float mid = 2.326819970068386e-2f;
  mid = mid * y - 1.387039388740657e-1f;
  mid = mid * y + 3.687424674597105e-1f;
  mid = mid * y - 5.824733027278666e-1f;
  mid = mid * y + 6.210004621745983e-1f;
  mid = mid * y - 4.944515323274145e-1f;
  mid = mid * y + 3.404879937665872e-1f;
  mid = mid * y - 2.741127028184656e-1f;
  mid = mid * y + 5.638259427386472e-1f;
  float far = -1.047766399936249e+1f;
  far = far * y + 1.297719955372516e+1f;
  far = far * y - 7.495518717768503e+0f;
  far = far * y + 2.921019019210786e+0f;
  far = far * y - 1.015265279202700e+0f;
  far = far * y + 4.218463358204948e-1f;
  far = far * y - 2.820767439740514e-1f;
  far = far * y + 5.641895067754075e-1f;
  const float tail = 0.5f * exponential(-square) * inverse * (a < 2 ? mid : far);
  const float outer = t > 0 ? 1 - tail : tail;
  return a < 1 ? 0.5f + 0.5f * (t * near) : outer;
}
inline double normal_cdf(double z) { return 0.5 * std::erfc(-z * M_SQRT1_2); }

// h(x) of the seven surrogates, x = v - v_th, numbered as in backend.py.
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

template <class M>
class Factor {  // decay or gate inside one block
 public:
  Factor(const Side& side, const Task& task, int64_t first, int64_t n)
      : side_(side), task_(task), first_(first), n_(n) {}
  explicit operator bool() const { return side_.data != nullptr; }
  const M* at(int64_t t) {
    const M* data = static_cast<const M*>(side_.data) + t * side_.per_step;
    if (side_.full) return data + first_;
    if (t > 0 && side_.per_step == 0 && ready_) return buffer_;
    if (side_.per_channel)
      spread(data, first_, n_, task_.C, task_.inner, buffer_);
    else
      std::fill(buffer_, buffer_ + n_, *data);
    ready_ = true;
    return buffer_;
  }

 private:
  const Side& side_;
  const Task& task_;
  int64_t first_, n_;
  bool ready_ = false;
  alignas(64) M buffer_[kLongest];
};

template <class X, class M>
class Block {  // n elements from `first` on, all T steps
 public:
  Block(const Task& task, int64_t first, int64_t n)
      : Block(task, first, n, task.spikes ? static_cast<X*>(task.spikes) + first : nullptr,
              task.d_spikes ? static_cast<const X*>(task.d_spikes) + first : nullptr, task.N) {}

  // Spikes are written to, and their derivatives read from, memory of the caller; the stride of a
  // time step is `step`.
  Block(const Task& task, int64_t first, int64_t n, X* spikes, const X* d_spikes, int64_t step)
      : k(task), first(first), n(n), step(step), fired(spikes), d_fired(d_spikes),
        decay(task.decay, task, first, n), gate(task.gate, task, first, n) {
    if (k.scale) {
      spread(static_cast<const M*>(k.scale), first, n, k.C, k.inner, scale);
      spread(static_cast<const M*>(k.shift), first, n, k.C, k.inner, shift);
    }
  }

  const X* input(int64_t t) const {
    return static_cast<const X*>(k.x) + (k.S == 1 ? 0 : t * k.N) + first;
  }

  void current(int64_t t, M* out) const {  // I[t], before the gate
    const X* x = input(t);
    if (k.scale) {
      SIMD for (int64_t i = 0; i < n; ++i) out[i] = fused(scale[i], M(x[i]), shift[i]);
    } else {
      SIMD for (int64_t i = 0; i < n; ++i) out[i] = M(x[i]);
    }
  }

  // Compute v[t] from u[t-1] and overwrite u with u[t]; p receives the probabilities, if any.
  void integrate(int64_t t, M* v, M* u, M* p) {
    current(t, v);
    if (gate) {
      const M* g = gate.at(t);
      SIMD for (int64_t i = 0; i < n; ++i) v[i] = g[i] * v[i];
    }
    if (t > 0) {
      const M* a = decay.at(t);
      SIMD for (int64_t i = 0; i < n; ++i) v[i] = a[i] * u[i] + v[i];
    }
    if (k.noise) {
      const M* noise = static_cast<const M*>(k.noise) + t * k.N + first;
      SIMD for (int64_t i = 0; i < n; ++i) v[i] = v[i] + noise[i];
    }
    if (k.smooth) {
      const M v_th = M(k.v_th), by = M(1 / k.p);
      SIMD for (int64_t i = 0; i < n; ++i) p[i] = normal_cdf((v[i] - v_th) * by);
    }
    if (t + 1 < k.T) reset(v, u, p);
  }

  void reset(const M* v, M* u, const M* p) const {
    const M v_th = M(k.v_th);
    if (k.smooth && k.soft) {
      SIMD for (int64_t i = 0; i < n; ++i) u[i] = v[i] - v_th * p[i];
    } else if (k.smooth) {
      SIMD for (int64_t i = 0; i < n; ++i) u[i] = v[i] * (1 - p[i]);
    } else if (k.soft) {
      SIMD for (int64_t i = 0; i < n; ++i) u[i] = v[i] - v_th * (v[i] >= v_th ? M(1) : M(0));
    } else {
      SIMD for (int64_t i = 0; i < n; ++i) u[i] = v[i] * (v[i] >= v_th ? M(0) : M(1));
    }
  }

  void forward() {
    const M v_th = M(k.v_th);
    alignas(64) M v[kLongest], u[kLongest], p[kLongest];
    for (int64_t t = 0; t < k.T; ++t) {
      integrate(t, v, u, p);
      X* spikes = fired + t * step;
      if (k.smooth) {
        SIMD for (int64_t i = 0; i < n; ++i) spikes[i] = X(p[i]);
      } else {
        SIMD for (int64_t i = 0; i < n; ++i) spikes[i] = X(v[i] >= v_th ? M(1) : M(0));
      }
      if (k.v) std::memcpy(static_cast<M*>(k.v) + t * k.N + first, v, n * sizeof(M));
    }
  }

  // `potentials` holds T * n values, and as many probabilities if the spikes are; the tables belong
  // to this thread.
  void backward(M* potentials, double* sums, double* d_decay, double* d_gate) {
    const M v_th = M(k.v_th);
    alignas(64) M h[kLongest], dv[kLongest], du[kLongest], total[kLongest], other[kLongest];
    M* const rates = potentials + k.T * n;
    for (int64_t t = 0; t < k.T; ++t) integrate(t, potentials + t * n, other, rates + t * n);
    std::fill(total, total + n, M(0));
    for (int64_t t = k.T - 1; t >= 0; --t) {
      const M* v = potentials + t * n;
      const int64_t place = t * k.N + first;
      SIMD for (int64_t i = 0; i < n; ++i) other[i] = v[i] - v_th;
      slope(k.surrogate, k.p, other, h, n);
      if (d_fired) {
        const X* ds = d_fired + t * step;
        SIMD for (int64_t i = 0; i < n; ++i) dv[i] = M(ds[i]);
      } else {
        std::fill(dv, dv + n, M(0));
      }
      const bool last = t + 1 == k.T;
      if (!last && !k.detach) {
        if (k.soft) {
          SIMD for (int64_t i = 0; i < n; ++i) dv[i] = dv[i] - du[i] * v_th;
        } else {
          SIMD for (int64_t i = 0; i < n; ++i) dv[i] = dv[i] - du[i] * v[i];
        }
      }
      SIMD for (int64_t i = 0; i < n; ++i) dv[i] = dv[i] * h[i];
      if (k.d_v) {
        const M* from = static_cast<const M*>(k.d_v) + place;
        SIMD for (int64_t i = 0; i < n; ++i) dv[i] = dv[i] + from[i];
      }
      if (!last) {
        if (k.soft) {
          SIMD for (int64_t i = 0; i < n; ++i) dv[i] = dv[i] + du[i];
        } else if (k.smooth) {
          const M* p = rates + t * n;
          SIMD for (int64_t i = 0; i < n; ++i) dv[i] += du[i] * (1 - p[i]);
        } else {
          SIMD for (int64_t i = 0; i < n; ++i) dv[i] += du[i] * (v[i] >= v_th ? M(0) : M(1));
        }
      }
      if (k.d_noise) std::memcpy(static_cast<M*>(k.d_noise) + place, dv, n * sizeof(M));
      if (k.d_gate || k.d_gate_full) {
        current(t, other);
        if (k.d_gate) gather(dv, other, first, n, k.C, k.inner, d_gate + t * k.C);
        if (k.d_gate_full) {
          M* out = static_cast<M*>(k.d_gate_full) + place;
          SIMD for (int64_t i = 0; i < n; ++i) out[i] = dv[i] * other[i];
        }
      }
      if (k.d_decay || k.d_decay_full) {
        if (t > 0)
          reset(potentials + (t - 1) * n, other, rates + (t - 1) * n);
        else
          std::fill(other, other + n, M(0));
        if (k.d_decay) gather(dv, other, first, n, k.C, k.inner, d_decay + t * k.C);
        if (k.d_decay_full) {
          M* out = static_cast<M*>(k.d_decay_full) + place;
          SIMD for (int64_t i = 0; i < n; ++i) out[i] = dv[i] * other[i];
        }
      }
      if (t > 0) {
        const M* a = decay.at(t);
        SIMD for (int64_t i = 0; i < n; ++i) du[i] = dv[i] * a[i];
      }
      if (gate) {
        const M* g = gate.at(t);
        SIMD for (int64_t i = 0; i < n; ++i) dv[i] = dv[i] * g[i];
      }
      if (k.S > 1 || k.T == 1) {
        finish(t, dv, sums);
      } else {
        SIMD for (int64_t i = 0; i < n; ++i) total[i] += dv[i];
      }
    }
    if (k.S == 1 && k.T > 1) finish(0, total, sums);
  }

 private:
  void finish(int64_t t, const M* g, double* sums) const {
    if (k.sums) {
      gather(g, One(), first, n, k.C, k.inner, sums);
      gather(g, input(t), first, n, k.C, k.inner, sums + k.C);
    }
    if (!k.dx) return;
    if (k.dx_is_membrane) {
      std::memcpy(static_cast<M*>(k.dx) + t * k.N + first, g, n * sizeof(M));
    } else {
      X* dx = static_cast<X*>(k.dx) + t * k.N + first;
      if (k.scale) {
        SIMD for (int64_t i = 0; i < n; ++i) dx[i] = X(g[i] * scale[i]);
      } else {
        SIMD for (int64_t i = 0; i < n; ++i) dx[i] = X(g[i]);
      }
    }
  }

  const Task& k;
  const int64_t first, n, step;
  X* const fired;
  const X* const d_fired;
  Factor<M> decay, gate;
  alignas(64) M scale[kLongest], shift[kLongest];
};

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

int64_t length_of(const Task& task) {  // of a block: at most 8192 potentials, 32 KiB in float32
  int64_t length = std::max<int64_t>(64, 8192 / task.T / 64 * 64);
  return std::min(length, kLongest);
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

// Precision of x: 0 float32, 1 float64, 2 bfloat16; it determines that of the membrane.
#define DISPATCH(precision, call)                                                       \
  switch (precision) {                                                                  \
    case 0: { using X = float; using M [[maybe_unused]] = float; call; return; }        \
    case 1: { using X = double; using M [[maybe_unused]] = double; call; return; }      \
    default: { using X = bfloat16; using M [[maybe_unused]] = float; call; return; }    \
  }

EXPORT void spikeguard_forward(const Task* task, const Pool* pool, int precision) {
  DISPATCH(precision, (forward<X, M>(*task, *pool)))
}
EXPORT void spikeguard_backward(const Task* task, const Pool* pool, int precision) {
  DISPATCH(precision, (backward<X, M>(*task, *pool)))
}
EXPORT void spikeguard_moments(const Task* task, const Pool* pool, int precision) {
  DISPATCH(precision, (moments<X>(*task, *pool)))
}
EXPORT void spikeguard_combine(const Combine* task, const Pool* pool, int precision) {
  DISPATCH(precision, (combine<X, M>(*task, *pool)))
}
EXPORT void spikeguard_retrace(const Retrace* task, const Pool* pool, int precision) {
  precision == 1 ? retrace<double>(*task, *pool) : retrace<float>(*task, *pool);
}
EXPORT void spikeguard_sharpen(const Sharpen* task, const Pool* pool, int precision) {
  precision == 1 ? sharpen<double>(*task, *pool) : sharpen<float>(*task, *pool);
}
EXPORT void spikeguard_pool(const Windows* task, const Pool* pool, int precision) {
  DISPATCH(precision, (pool_windows<X, M>(*task, *pool)))
}
EXPORT void spikeguard_unpool(const Windows* task, const Pool* pool, int precision) {
  DISPATCH(precision, (unpool_windows<X, M>(*task, *pool)))
}
EXPORT void spikeguard_draw(const Draws* task, const Pool* pool, int) { draw(*task, *pool); }
EXPORT int64_t spikeguard_layout() {  // sizes of the structures, to compare with library.py
  int64_t sizes = 0;
  for (int64_t size : {sizeof(Task), sizeof(Combine), sizeof(Retrace), sizeof(Sharpen),
                       sizeof(Windows), sizeof(Draws)})
    sizes = sizes * 1000 + size;
  return sizes;
}
