// The membrane recurrence of one block over all T steps, forward and backward.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include "arithmetic.h"
#include "blocks.h"
#include "interface.h"
#include "surrogates.h"

namespace {

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

}  // namespace
