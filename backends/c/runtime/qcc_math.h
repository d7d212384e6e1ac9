/*
 * Elementary functions in float32 without a math library.
 *
 * Relative error at most 2e-6 over the stated ranges (absolute where a function crosses zero away from x = 0).
 * NaN gives NaN; overflow gives infinity. Polynomials: Chebyshev fits of degree 5 to 7, or the Taylor series
 * where the interval is short. Bits of a float are read through a union, which C99 defines and every C++
 * compiler that targets C programs accepts.
 */
#ifndef QCC_MATH_H
#define QCC_MATH_H

#include <stdint.h>

static inline float qcc_float_of_bits(uint32_t bits) {
  union {
    uint32_t u;
    float f;
  } pun;
  pun.u = bits;
  return pun.f;
}

static inline uint32_t qcc_bits_of_float(float x) {
  union {
    uint32_t u;
    float f;
  } pun;
  pun.f = x;
  return pun.u;
}

static inline float qcc_infinity(void) {
  return qcc_float_of_bits(0x7f800000u);
}

static inline float qcc_nan(void) {
  return qcc_float_of_bits(0x7fc00000u);
}

static inline int qcc_is_nan(float x) {
  return (qcc_bits_of_float(x) & 0x7fffffffu) > 0x7f800000u;
}

static inline float qcc_fabsf(float x) {
  return qcc_float_of_bits(qcc_bits_of_float(x) & 0x7fffffffu);
}

/* Magnitude of x, sign of s. */
static inline float qcc_copysignf(float x, float s) {
  return qcc_float_of_bits((qcc_bits_of_float(x) & 0x7fffffffu) | (qcc_bits_of_float(s) & 0x80000000u));
}

/* Toward zero. From 2^23 on every float is an integer; NaN stays NaN. */
static inline float qcc_truncf(float x) {
  if (!(qcc_fabsf(x) < 8388608.0f)) {
    return x;
  }
  return qcc_copysignf((float)(int32_t)x, x);
}

static inline float qcc_floorf(float x) {
  const float t = qcc_truncf(x);
  return t > x ? t - 1.0f : t;
}

static inline float qcc_ceilf(float x) {
  const float t = qcc_truncf(x);
  return t < x ? qcc_copysignf(t + 1.0f, x) : t;
}

/* To nearest, ties to even, whatever the rounding mode: x - trunc(x) is exact. */
static inline float qcc_rintf(float x) {
  if (!(qcc_fabsf(x) < 8388608.0f)) {
    return x;
  }
  {
    const int32_t whole = (int32_t)x;
    const float rest = qcc_fabsf(x - (float)whole);
    const int32_t up = rest > 0.5f || (rest == 0.5f && (whole & 1) != 0);
    return qcc_copysignf((float)(whole + (x < 0.0f ? -up : up)), x);
  }
}

/* 2^n for -126 <= n <= 127. */
static inline float qcc_exp2i(int32_t n) {
  return qcc_float_of_bits((uint32_t)(n + 127) << 23);
}

/* Four Newton steps from a guess that halves the exponent: correct to one unit in the last place. */
static inline float qcc_sqrtf(float x) {
  float scale = 1.0f;
  float y;
  int i;
  if (!(x > 0.0f)) {
    return x < 0.0f ? qcc_nan() : x;
  }
  if (qcc_bits_of_float(x) == 0x7f800000u) {
    return x;
  }
  if (x < 1.17549435e-38f) { /* subnormal: scale by 2^24, the root by 2^-12 */
    x *= 16777216.0f;
    scale = 1.0f / 4096.0f;
  }
  y = qcc_float_of_bits((qcc_bits_of_float(x) >> 1) + 0x1fbd1df5u);
  for (i = 0; i < 4; ++i) {
    y = 0.5f * (y + x / y);
  }
  return y * scale;
}

/* e^r - 1 for |r| <= 0.36. */
static inline float qcc_expm1_reduced(float r) {
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  return r + r * r * p;
}

/* x = n ln 2 + r, ln 2 in two parts of which the first times n is exact; then 2^n e^r. */
static inline float qcc_expf(float x) {
  int32_t n;
  float r;
  if (qcc_is_nan(x)) {
    return x;
  }
  if (x > 88.7228394f) {
    return qcc_infinity();
  }
  if (x < -103.98f) {
    return 0.0f;
  }
  n = (int32_t)qcc_rintf(x * 1.44269504f);
  r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
  r = 1.0f + qcc_expm1_reduced(r);
  /* two factors: n may be 128 or below -126 */
  return r * qcc_exp2i(n / 2) * qcc_exp2i(n - n / 2);
}

static inline float qcc_expm1f(float x) {
  return qcc_fabsf(x) < 0.35f ? qcc_expm1_reduced(x) : qcc_expf(x) - 1.0f;
}

/* log(1 + f) for 1/sqrt(2) <= 1 + f <= sqrt(2): 2 atanh(s), s = f / (2 + f). */
static inline float qcc_log1p_reduced(float f) {
  const float s = f / (2.0f + f);
  const float z = s * s;
  float p = 2.0f / 11.0f;
  p = p * z + 2.0f / 9.0f;
  p = p * z + 2.0f / 7.0f;
  p = p * z + 2.0f / 5.0f;
  p = p * z + 2.0f / 3.0f;
  /* 2 s = f - s f: f itself is exact, so a small f keeps all its digits */
  return f - s * (f - z * p);
}

static inline float qcc_logf(float x) {
  int32_t e = 0;
  uint32_t bits;
  if (!(x > 0.0f)) {
    return x == 0.0f ? -qcc_infinity() : (qcc_is_nan(x) ? x : qcc_nan());
  }
  if (qcc_bits_of_float(x) == 0x7f800000u) {
    return x;
  }
  if (x < 1.17549435e-38f) {
    x *= 16777216.0f;
    e = -24;
  }
  bits = qcc_bits_of_float(x) - 0x3f3504f3u; /* 1/sqrt(2) becomes 0 */
  e += (int32_t)((bits + 0x3f800000u) >> 23) - 127;
  x = qcc_float_of_bits((bits & 0x007fffffu) + 0x3f3504f3u);
  return (qcc_log1p_reduced(x - 1.0f) - (float)e * 2.12194440e-4f) + (float)e * 0.693359375f;
}

static inline float qcc_log1pf(float x) {
  return x > -0.29f && x < 0.41f ? qcc_log1p_reduced(x) : qcc_logf(1.0f + x);
}

static inline float qcc_tanhf(float x) {
  const float a = qcc_fabsf(x);
  if (a < 0.63f) {
    const float z = x * x;
    float p = -0.005607689f;
    p = p * z + 0.020544905f;
    p = p * z - 0.053707067f;
    p = p * z + 0.13330957f;
    p = p * z - 0.33333254f;
    return x + x * z * p;
  }
  if (a > 10.0f) {
    return qcc_copysignf(1.0f, x);
  }
  return qcc_is_nan(x) ? x : qcc_copysignf(1.0f - 2.0f / (qcc_expf(2.0f * a) + 1.0f), x);
}

static inline float qcc_sigmoidf(float x) {
  /* e^-x overflows to infinity for a large negative x, which still gives the right 0 */
  return 1.0f / (1.0f + qcc_expf(-x));
}

/* |x| < 1: polynomial in x^2. Beyond: Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
static inline float qcc_erff(float x) {
  const float a = qcc_fabsf(x);
  if (a < 1.0f) {
    const float z = x * x;
    float p = -9.67359e-06f;
    p = p * z + 0.00011268254f;
    p = p * z - 0.00084843964f;
    p = p * z + 0.0052210535f;
    p = p * z - 0.026865438f;
    p = p * z + 0.11283783f;
    p = p * z - 0.37612638f;
    p = p * z + 1.1283792f;
    return x * p;
  }
  if (a > 4.0f) {
    return qcc_copysignf(1.0f, x);
  }
  if (qcc_is_nan(x)) {
    return x;
  }
  {
    const float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    return qcc_copysignf(1.0f - p * t * qcc_expf(-a * a), x);
  }
}

/* sin(r) for quadrant 0, cos(r) for 1, -sin(r) for 2, -cos(r) for 3; r in [-pi/4, pi/4]. |x| <= 1e6. */
static inline float qcc_sin_quadrant(float x, int32_t shift) {
  double reduced;
  float r, z, p;
  int32_t n;
  if (!(qcc_fabsf(x) < 1e9f)) {
    return qcc_nan();
  }
  n = (int32_t)((double)x * 0.63661977236758134 + (x < 0.0f ? -0.5 : 0.5));
  reduced = (double)x - (double)n * 1.5707963267948966;
  r = (float)reduced;
  z = r * r;
  n += shift;
  if ((n & 1) != 0) {
    p = 2.48015873e-5f;
    p = p * z - 1.38888889e-3f;
    p = p * z + 4.16666667e-2f;
    p = 1.0f - 0.5f * z + z * z * p;
  } else {
    p = 2.75573192e-6f;
    p = p * z - 1.98412698e-4f;
    p = p * z + 8.33333333e-3f;
    p = p * z - 1.66666667e-1f;
    p = r + r * z * p;
  }
  return (n & 2) != 0 ? -p : p;
}

static inline float qcc_sinf(float x) {
  return qcc_sin_quadrant(x, 0);
}

static inline float qcc_cosf(float x) {
  return qcc_sin_quadrant(x, 1);
}

/* Fit on |x| <= tan(pi/8), where the others are reduced to: pi/4 + atan((a - 1) / (a + 1)), pi/2 - atan(1 / a). */
static inline float qcc_atanf(float x) {
  float a = qcc_fabsf(x);
  float whole = 0.0f;
  float z, p;
  if (a > 2.41421356f) {
    whole = 1.57079633f;
    a = -1.0f / a;
  } else if (a > 0.414213562f) {
    whole = 0.785398163f;
    a = (a - 1.0f) / (a + 1.0f);
  }
  z = a * a;
  p = 8.05374449538e-2f;
  p = p * z - 1.38776856032e-1f;
  p = p * z + 1.99777106478e-1f;
  p = p * z - 3.33329491539e-1f;
  return qcc_copysignf(whole + (a + a * z * p), x);
}

/* tan of half the angle is x / (1 + cos). */
static inline float qcc_asinf(float x) {
  return 2.0f * qcc_atanf(x / (1.0f + qcc_sqrtf((1.0f - x) * (1.0f + x))));
}

/* tan^2 of half the angle is (1 - x) / (1 + x). */
static inline float qcc_acosf(float x) {
  return 2.0f * qcc_atanf(qcc_sqrtf((1.0f - x) / (1.0f + x)));
}

/* From 1e9 on, log 2a; below, log1p keeps the digits of a small a. */
static inline float qcc_asinhf(float x) {
  const float a = qcc_fabsf(x);
  if (a > 1e9f) {
    return qcc_copysignf(qcc_logf(a) + 0.693147181f, x);
  }
  return qcc_copysignf(qcc_log1pf(a + a * a / (1.0f + qcc_sqrtf(1.0f + a * a))), x);
}

static inline float qcc_atanhf(float x) {
  const float a = qcc_fabsf(x);
  return qcc_copysignf(0.5f * qcc_log1pf(2.0f * a / (1.0f - a)), x);
}

/* e^(b log a) in double: in float the error of log a would be multiplied by b. */
static inline float qcc_powf_positive(float a, float b) {
  int32_t e = 0;
  uint32_t bits;
  double s, z, p, t, r;
  int32_t n;
  if (a < 1.17549435e-38f) {
    a *= 16777216.0f;
    e = -24;
  }
  bits = qcc_bits_of_float(a) - 0x3f3504f3u;
  e += (int32_t)((bits + 0x3f800000u) >> 23) - 127;
  s = (double)qcc_float_of_bits((bits & 0x007fffffu) + 0x3f3504f3u);
  s = (s - 1.0) / (s + 1.0);
  z = s * s;
  p = 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  p = p * z + 1.0;
  t = (double)b * (2.0 * s * p + (double)e * 0.69314718055994531);
  if (!(t < 88.73)) {
    return qcc_infinity();
  }
  if (t < -103.98) {
    return 0.0f;
  }
  n = (int32_t)(t * 1.4426950408889634 + (t < 0.0 ? -0.5 : 0.5));
  r = t - (double)n * 0.69314718055994531;
  p = 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return (float)p * qcc_exp2i(n / 2) * qcc_exp2i(n - n / 2);
}

/* pow as in annex F of C99. */
static inline float qcc_powf(float a, float b) {
  const float inf = qcc_infinity();
  const float magnitude = qcc_fabsf(a);
  const float whole = qcc_truncf(b);
  /* from 2^24 on every float is even */
  const int odd = whole == b && qcc_fabsf(b) < 16777216.0f && ((int32_t)whole & 1) != 0;
  const float sign = odd ? qcc_copysignf(1.0f, a) : 1.0f;
  if (b == 0.0f || a == 1.0f) {
    return 1.0f;
  }
  if (qcc_is_nan(a) || qcc_is_nan(b)) {
    return qcc_nan();
  }
  if (a < 0.0f && magnitude < inf && whole != b) {
    return qcc_nan();
  }
  if (magnitude == 0.0f || magnitude == inf) {
    return sign * ((magnitude == 0.0f) == (b > 0.0f) ? 0.0f : inf);
  }
  if (qcc_fabsf(b) == inf) {
    return magnitude == 1.0f ? 1.0f : ((magnitude > 1.0f) == (b > 0.0f) ? inf : 0.0f);
  }
  return sign * qcc_powf_positive(magnitude, b);
}

#endif
