/* What the NEON kernels of tensors with 16 bits share: params, and requantization.
 *
 * Sums are int32 and wrap around; the compiler proves where they end. Requantization, equal to the definition
 * (qcc_requantize.h):
 *
 *   sqshl    a = acc << up, which stays within 32 bits; up is 0 unless the shift is less than 32
 *   sqdmulh  b = floor(a * multiplier / 2^31)
 *   srshl    c = floor((b + 2^(down - 1)) / 2^down), down = shift + up - 31
 *   sqxtn    c to int16, saturated; plus the zero_point
 *
 * A floor of a floor is the floor, so c rounds once. scale: int32[channels rounded up to 16 / 4][3][4] of multiplier, up, -down.
 */
#ifndef QCC_NEON_WIDE_H
#define QCC_NEON_WIDE_H

#include "qcc_neon.h"
#include "qcc_neon_wide_kernels.h"

typedef struct {
  int16x8_t zero_point, low, high;
} qcc_neon_wide_output;

QCC_INLINE qcc_neon_wide_output qcc_neon_wide_saturation(int32_t zero_point, int32_t low, int32_t high) {
  const qcc_neon_wide_output o = {vdupq_n_s16((int16_t)zero_point), vdupq_n_s16((int16_t)low),
                                  vdupq_n_s16((int16_t)high)};
  return o;
}

QCC_INLINE int32x4_t qcc_neon_wide_scaled(int32x4_t acc, int32x4_t multiplier, int32x4_t up, int32x4_t down) {
  return vrshlq_s32(vqdmulhq_s32(vqshlq_s32(acc, up), multiplier), down);
}

/* 8 scaled accumulators to results. */
QCC_INLINE int16x8_t qcc_neon_wide_narrowed(int32x4_t a, int32x4_t b, qcc_neon_wide_output o) {
  const int16x8_t y = vqaddq_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), o.zero_point);
  return vminq_s16(vmaxq_s16(y, o.low), o.high);
}

/* 8 elements from `index` on. */
QCC_INLINE int16x8_t qcc_neon_wide_load(const void *data, ptrdiff_t index, int32_t bytes) {
  return bytes == 2 ? vld1q_s16((const int16_t *)data + index) : vmovl_s8(vld1_s8((const int8_t *)data + index));
}

QCC_INLINE void qcc_neon_wide_put(void *data, ptrdiff_t index, int32_t bytes, int16x8_t x) {
  if (bytes == 2) {
    vst1q_s16((int16_t *)data + index, x);
  } else {
    vst1_s8((int8_t *)data + index, vmovn_s16(x));
  }
}

/* The first `count` (up to 8) of them; zeros behind them. */
QCC_RARE int16x8_t qcc_neon_wide_load_few(const void *data, ptrdiff_t index, int32_t bytes, int32_t count) {
  int16_t x[8] = {0};
  for (int32_t i = 0; i < count; ++i) {
    x[i] = bytes == 2 ? ((const int16_t *)data)[index + i] : ((const int8_t *)data)[index + i];
  }
  return vld1q_s16(x);
}

QCC_RARE void qcc_neon_wide_put_few(void *data, ptrdiff_t index, int32_t bytes, int32_t count, int16x8_t x) {
  int16_t y[8];
  vst1q_s16(y, x);
  for (int32_t i = 0; i < count && i < 8; ++i) {
    if (bytes == 2) {
      ((int16_t *)data)[index + i] = y[i];
    } else {
      ((int8_t *)data)[index + i] = (int8_t)y[i];
    }
  }
}

#endif
