// The membrane recurrence over all T steps, forward and backward, for the CPU. reference.py is the
// definition; the arithmetic here is the same operation by operation (compiled without
// contraction), so that the forward pass is bit-equal.
//
// A layer is [T, N] elements; the channel of element i is (i / inner) % C. Elements are processed
// in blocks: the potentials of a block fit in the cache for all T steps, so each tensor is read
// once. The interface is plain C with data pointers: it does not depend on torch's ABI and links no
// OpenMP runtime (the caller passes the entry points of the runtime that torch has loaded).

#include "arithmetic.h"
#include "batch_norm.h"
#include "interface.h"
#include "layer.h"
#include "pooling.h"
#include "random_numbers.h"
#include "slopes.h"

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
    sizes = sizes * 31 + size;
  return sizes;
}
