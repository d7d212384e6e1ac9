/* What the NEON kernels share: requantization, residual operands, loads and stores of a few bytes.
 *
 * Requantization without float, equal to the definition (qcc_requantize.h) for every int32 accumulator: the compiler
 * writes multiplier * 2^-shift as m * 2^-(47 - k), and
 *
 *   sqshl    a = saturate(acc << k)
 *   sqdmulh  b = floor(a * m / 2^31)
 *   raddhn   c = floor((b + zero_point * 2^16 + 2^15) / 2^16)
 *   sqxtn    the output, saturated
 *
 * A floor of a floor is the floor, so c rounds acc * m / 2^(47 - k) once. Where acc << k saturates, c lies beyond int8, and
 * requantization in neon.py chooses m such that it does not leave int16.
 */
#ifndef QCC_NEON_H
#define QCC_NEON_H

#if !defined(__ARM_NEON)
#error "this library needs an Arm processor with NEON"
#endif

/* gcc's scheduler before register allocation moves loads up until the sums no longer fit into the registers. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif

#include <arm_neon.h>

#if !defined(__aarch64__)
#include "qcc_neon_32.h"
#endif

#include "qcc_neon_kernels.h"
#include "qcc_vectors.h"

/* The first `count` (0 to 15) bytes; zeros behind them. */
QCC_RARE int8x16_t qcc_load_few(const int8_t *x, int32_t count) {
  int8_t bytes[16] = {0};
  for (int32_t i = 0; i < count; ++i) {
    bytes[i] = x[i];
  }
  return vld1q_s8(bytes);
}

/* Stores the first `count` (0 to 15) bytes. */
QCC_INLINE void qcc_store_few(int8_t *to, int8x16_t x, int32_t count) {
  if (count & 8) {
    vst1_s8(to, vget_low_s8(x));
    x = vextq_s8(x, x, 8);
    to += 8;
  }
  if (count & 4) {
    const int32_t word = vgetq_lane_s32(vreinterpretq_s32_s8(x), 0);
    __builtin_memcpy(to, &word, 4);
    x = vextq_s8(x, x, 4);
    to += 4;
  }
  if (count & 2) {
    const int16_t half = vgetq_lane_s16(vreinterpretq_s16_s8(x), 0);
    __builtin_memcpy(to, &half, 2);
    x = vextq_s8(x, x, 2);
    to += 2;
  }
  if (count & 1) {
    *to = vgetq_lane_s8(x, 0);
  }
}

/* `count` (16 or more: 16) bytes. */
QCC_INLINE int8x16_t qcc_load_bytes(const int8_t *x, int32_t count) {
  return count >= 16 ? vld1q_s8(x) : qcc_load_few(x, count);
}

QCC_INLINE void qcc_store_bytes(int8_t *to, int8x16_t x, int32_t count) {
  if (count >= 16) {
    vst1q_s8(to, x);
  } else {
    qcc_store_few(to, x, count);
  }
}

/* Up to four vectors at once; returns what lies behind them. */
QCC_INLINE const int8_t *qcc_load_vectors(const int vectors, int8x16_t *w, const int8_t *from) {
#if !defined(__aarch64__)
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v, from += 16) {
    __asm__("" : "+r"(from)); /* each load moves the address on */
    w[v] = vld1q_s8(from);
  }
  return from;
#else
  if (vectors == 4) {
    const int8x16x4_t x = vld1q_s8_x4(from);
    w[0] = x.val[0], w[1] = x.val[1], w[2] = x.val[2], w[3] = x.val[3];
  } else if (vectors == 3) {
    const int8x16x3_t x = vld1q_s8_x3(from);
    w[0] = x.val[0], w[1] = x.val[1], w[2] = x.val[2];
  } else if (vectors == 2) {
    const int8x16x2_t x = vld1q_s8_x2(from);
    w[0] = x.val[0], w[1] = x.val[1];
  } else {
    w[0] = vld1q_s8(from);
  }
  return from + 16 * vectors;
#endif
}

/* 64 bytes. */
QCC_INLINE void qcc_copy_64(int8_t *to, const int8_t *from) {
#if defined(__aarch64__)
  vst1q_s8_x4(to, vld1q_s8_x4(from));
#else
  int8x16_t x[4];
  qcc_load_vectors(4, x, from);
  QCC_UNROLL
  for (int v = 0; v < 4; ++v) {
    vst1q_s8(to + 16 * v, x[v]);
  }
#endif
}

typedef struct {
  int32x4_t zero_point; /* times 2^16 */
  int8x16_t low, high;
} qcc_neon_output;

QCC_INLINE qcc_neon_output qcc_saturation(int32_t zero_point, int32_t low, int32_t high) {
  const qcc_neon_output o = {vdupq_n_s32(zero_point * 65536), vdupq_n_s8((int8_t)low), vdupq_n_s8((int8_t)high)};
  return o;
}

/* scale: m of four channels, then k of them. */
QCC_INLINE int32x4_t qcc_scaled(int32x4_t acc, int32x4_t m, int32x4_t k) { return vqdmulhq_s32(vqshlq_s32(acc, k), m); }

/* The same with both in memory, loaded at once; moves on to those of the next channels. */
QCC_INLINE int32x4_t qcc_scaled_by(int32x4_t acc, const int32_t **scale) {
#if defined(__aarch64__)
  const int32x4x2_t both = vld1q_s32_x2(*scale);
  const int32x4_t m = both.val[0], k = both.val[1];
#else
  __asm__ volatile("" : "+r"(*scale)); /* no register for each address */
  const int32x4_t m = vld1q_s32(*scale), k = vld1q_s32(*scale + 4);
#endif
  *scale += 8;
  return qcc_scaled(acc, m, k);
}

/* 8 scaled accumulators to int16. */
QCC_INLINE int16x8_t qcc_halves(int32x4_t a, int32x4_t b, qcc_neon_output o) {
  return vraddhn_high_s32(vraddhn_s32(a, o.zero_point), b, o.zero_point);
}

/* 16 scaled accumulators to int8. */
QCC_INLINE int8x16_t qcc_narrowed(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d, const int clamps, qcc_neon_output o) {
  int8x16_t y = vqmovn_high_s16(vqmovn_s16(qcc_halves(a, b, o)), qcc_halves(c, d, o));
  if (clamps) {
    y = vminq_s8(vmaxq_s8(y, o.low), o.high);
  }
  return y;
}

/* 16 channels, scale: int32[4][2][4]. */
QCC_INLINE int8x16_t qcc_requantize_16(const int32x4_t *acc, const int32_t *scale, qcc_neon_output o) {
  int32x4_t q[4];
  QCC_UNROLL
  for (int v = 0; v < 4; ++v) {
    q[v] = qcc_scaled(acc[v], vld1q_s32(scale + 8 * v), vld1q_s32(scale + 8 * v + 4));
  }
  return qcc_narrowed(q[0], q[1], q[2], q[3], 1, o);
}

/* Bytes 4 * v to 4 * v + 3. */
QCC_INLINE int32x4_t qcc_widened(int8x16_t x, const int v) {
  const int16x8_t half = v < 2 ? vmovl_s8(vget_low_s8(x)) : vmovl_high_s8(x);
  return v % 2 ? vmovl_high_s16(half) : vmovl_s16(vget_low_s16(half));
}

/* acc += skip * multiplier, of up to 16 channels in `vectors` vectors. */
QCC_INLINE void qcc_add_skip(const int vectors, int32x4_t *acc, int8x16_t skip, const int32_t *multiplier) {
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    acc[v] = vmlaq_s32(acc[v], qcc_widened(skip, v), vld1q_s32(multiplier + 4 * v));
  }
}

#endif
