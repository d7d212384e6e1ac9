/* s16_sum_avx2: means and sums over neighbouring axes with requantization; input and output int8 or int16.
 *
 *   acc = bias + sum over i of input[n][i][c]
 *   output[n][c] = requantize(acc), saturated to [low, high]
 *
 * input    int8 or int16 [batch][count][channels]
 * multiplier, shift  int32[channels rounded up to 16], in the order of qcc_avx2.h
 * output   int8 or int16 [batch][channels]; does not overlap input
 *
 * The sum lies within int32.
 * Reference: ReduceMean.int_ref, ReduceSum.int_ref, Requantize.int_ref.
 */
#include "qcc_avx2_wide.h"

/* sums += the `count` pixels from element `at` on, of `left` (16 or more: 16) channels. */
QCC_INLINE void add_pixels(const int bytes, const void *input, ptrdiff_t at, ptrdiff_t step, int32_t count, int32_t left,
                           __m256i *sums) {
  for (int32_t i = 0; i < count; ++i, at += step) {
    __m256i terms[2];
    qcc_widen(qcc_wide_loads(input, at, bytes, left), &terms[0], &terms[1]);
    sums[0] = _mm256_add_epi32(sums[0], terms[0]);
    sums[1] = _mm256_add_epi32(sums[1], terms[1]);
  }
}

void qcc_s16_sum_avx2(const qcc_avx2_wide_sum_params *params, const void *QCC_RESTRICT input,
                      const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                      void *QCC_RESTRICT output) {
  const qcc_avx2_wide_sum_params *p = params;
  const qcc_wide_output o = qcc_wide_saturation(p->low, p->high, 1, p->output_bytes);
  for (int32_t c = 0; c < p->channels; c += 16) {
    const int32_t left = p->channels - c;
    qcc_wide_scale scale[2];
    for (int v = 0; v < 2; ++v) {
      scale[v] = qcc_wide_scale_of(qcc_load(multiplier + c + 8 * v), qcc_load(shift + c + 8 * v), p->output_zero_point);
    }
    for (int32_t n = 0; n < p->batch; ++n) {
      const ptrdiff_t at = (ptrdiff_t)n * p->count * p->channels + c;
      __m256i sums[2] = {_mm256_set1_epi32(p->bias), _mm256_set1_epi32(p->bias)};
      if (left < 16) {
        add_pixels(p->input_bytes, input, at, p->channels, p->count, left, sums);
      } else if (p->input_bytes == 2) {
        add_pixels(2, input, at, p->channels, p->count, 16, sums);
      } else {
        add_pixels(1, input, at, p->channels, p->count, 16, sums);
      }
      qcc_wide_put(2, sums, scale, &o, output, (ptrdiff_t)n * p->channels + c, left);
    }
  }
}
