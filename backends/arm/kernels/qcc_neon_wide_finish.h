/* How the convolutions with 16 bits end: residual operand, requantization, and the results of a tile. */
#ifndef QCC_NEON_WIDE_FINISH_H
#define QCC_NEON_WIDE_FINISH_H

#include "qcc_neon_wide.h"

typedef struct {
  const int32_t *bias, *skip_multiplier, *scale;
  int32_t outputs, skip_bytes, output_bytes;
  qcc_neon_wide_output saturation;
} qcc_neon_wide_layer;

/* The sums of 16 channels from `o` on, of up to 4 pixels; `at`: element of the first output of the first pixel. */
QCC_INLINE void qcc_neon_wide_finish(const int rows, const qcc_neon_wide_layer *l, int32x4_t *acc, int32_t o, const void *skip,
                                void *output, ptrdiff_t at) {
  const ptrdiff_t outputs = l->outputs;
  const int32_t *scale = l->scale + 3 * o;
  QCC_UNROLL
  for (int half = 0; half < 2; ++half, scale += 24) {
    const int32_t first = o + 8 * half, left = l->outputs - first;
    if (left <= 0) {
      return;
    }
    const int32x4_t multiplier[2] = {vld1q_s32(scale), vld1q_s32(scale + 12)};
    const int32x4_t up[2] = {vld1q_s32(scale + 4), vld1q_s32(scale + 16)};
    const int32x4_t down[2] = {vld1q_s32(scale + 8), vld1q_s32(scale + 20)};
    if (skip) {
      const int32x4_t by[2] = {vld1q_s32(l->skip_multiplier + first), vld1q_s32(l->skip_multiplier + first + 4)};
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        const ptrdiff_t index = at + first + r * outputs;
        const int16x8_t x = left >= 8 ? qcc_neon_wide_load(skip, index, l->skip_bytes)
                                      : qcc_neon_wide_load_few(skip, index, l->skip_bytes, left);
        int32x4_t *const a = acc + 4 * r + 2 * half;
        a[0] = vmlaq_s32(a[0], vmovl_s16(vget_low_s16(x)), by[0]);
        a[1] = vmlaq_s32(a[1], vmovl_s16(vget_high_s16(x)), by[1]);
      }
    }
    int16x8_t y[4];
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      const int32x4_t *const a = acc + 4 * r + 2 * half;
      y[r] = qcc_neon_wide_narrowed(qcc_neon_wide_scaled(a[0], multiplier[0], up[0], down[0]),
                                    qcc_neon_wide_scaled(a[1], multiplier[1], up[1], down[1]), l->saturation);
    }
    if (left >= 8 && l->output_bytes == 1) {
      int8_t *const to = (int8_t *)output + at + first;
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        vst1_s8(to + r * outputs, vmovn_s16(y[r]));
      }
    } else {
      QCC_UNROLL
      for (int r = 0; r < rows; ++r) {
        const ptrdiff_t index = at + first + r * outputs;
        if (left >= 8) {
          vst1q_s16((int16_t *)output + index, y[r]);
        } else {
          qcc_neon_wide_put_few(output, index, l->output_bytes, left, y[r]);
        }
      }
    }
  }
}

#endif
