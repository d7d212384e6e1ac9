/* Sums of pixels, of 16 channels at a time. */
#ifndef QCC_NEON_SUM_H
#define QCC_NEON_SUM_H

#include "qcc_neon.h"

/* acc[0..3] += the sum over `count` pixels, `step` bytes apart, of `width` channels (16 or more: 16). Up to 255 elements are
 * added in 16 bits: 255 * 128 fits. */
QCC_INLINE void qcc_add_pixels(int32x4_t *acc, const int8_t *x, ptrdiff_t step, int32_t count, int32_t width) {
  while (count > 0) {
    const int32_t part = count < 255 ? count : 255;
    int16x8_t low = vdupq_n_s16(0), high = low;
    for (int32_t i = 0; i < part; ++i, x += step) {
      const int8x16_t bytes = qcc_load_bytes(x, width);
      low = vaddw_s8(low, vget_low_s8(bytes));
      high = vaddw_high_s8(high, bytes);
    }
    acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
    acc[1] = vaddw_high_s16(acc[1], low);
    acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
    acc[3] = vaddw_high_s16(acc[3], high);
    count -= part;
  }
}

/* The first `count` of 4 * vectors numbers. */
QCC_INLINE void qcc_store_sums(const int vectors, int32_t *to, const int32x4_t *acc, int32_t count) {
  if (count >= 4 * vectors) {
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      vst1q_s32(to + 4 * v, acc[v]);
    }
    return;
  }
  int32_t sums[16];
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    vst1q_s32(sums + 4 * v, acc[v]);
  }
  for (int32_t i = 0; i < count; ++i) {
    to[i] = sums[i];
  }
}

#endif
