// Numbers of one element: bfloat16, a fused multiply-add, exp and the normal distribution function.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

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

}  // namespace
