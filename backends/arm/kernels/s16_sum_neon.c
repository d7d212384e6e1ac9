/* s16_sum_neon: means and sums over neighbouring axes with requantization; input and output of 8 or 16 bits.
 *
 *   acc = bias + sum over i of input[n][i][c]
 *   output[n][c] = requantize(acc), saturated to [low, high]
 *
 * input    int8 or int16 [batch][count][channels]
 * scale    int32[channels rounded up to 16 / 4][3][4], see qcc_neon_wide.h
 * output   int8 or int16 [batch][channels]; does not overlap input
 *
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: ReduceMean.int_ref and ReduceSum.int_ref in qcc/ir/ops/reduce.py, Requantize.int_ref in qcc/ir/ops/quant.py.
 */
#include "qcc_neon_wide.h"

/* sums += the pixels from element `at` on, of `left` (8 or more: 8) channels. */
QCC_INLINE void add_pixels(const int32_t bytes, const qcc_neon_wide_sum_params *p, const void *input, ptrdiff_t at,
                           int32_t left, int32x4_t *sums) {
  for (int32_t i = 0; i < p->count; ++i, at += p->channels) {
    const int16x8_t x =
        left >= 8 ? qcc_neon_wide_load(input, at, bytes) : qcc_neon_wide_load_few(input, at, bytes, left);
    sums[0] = vaddw_s16(sums[0], vget_low_s16(x));
    sums[1] = vaddw_s16(sums[1], vget_high_s16(x));
  }
}

void qcc_s16_sum_neon(const qcc_neon_wide_sum_params *params, const void *QCC_RESTRICT input,
                      const int32_t *QCC_RESTRICT scale, void *QCC_RESTRICT output) {
  const qcc_neon_wide_sum_params p = *params;
  const qcc_neon_wide_output o = qcc_neon_wide_saturation(p.output_zero_point, p.low, p.high);
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t c = 0; c < p.channels; c += 8) {
      const ptrdiff_t from = (ptrdiff_t)n * p.count * p.channels + c, to = (ptrdiff_t)n * p.channels + c;
      const int32_t left = p.channels - c, *s = scale + 3 * (ptrdiff_t)c;
      int32x4_t sums[2] = {vdupq_n_s32(p.bias), vdupq_n_s32(p.bias)};
      if (p.input_bytes == 2) {
        add_pixels(2, &p, input, from, left, sums);
      } else {
        add_pixels(1, &p, input, from, left, sums);
      }
      sums[0] = qcc_neon_wide_scaled(sums[0], vld1q_s32(s), vld1q_s32(s + 4), vld1q_s32(s + 8));
      sums[1] = qcc_neon_wide_scaled(sums[1], vld1q_s32(s + 12), vld1q_s32(s + 16), vld1q_s32(s + 20));
      const int16x8_t y = qcc_neon_wide_narrowed(sums[0], sums[1], o);
      if (left >= 8) {
        qcc_neon_wide_put(output, to, p.output_bytes, y);
      } else {
        qcc_neon_wide_put_few(output, to, p.output_bytes, left, y);
      }
    }
  }
}
