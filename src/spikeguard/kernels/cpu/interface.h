// The structures with which Python calls the kernel, plain C; library.py declares the same ones.

#pragma once

#include <cstdint>

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
