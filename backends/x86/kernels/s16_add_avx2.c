/* s16_add_avx2: the sum of two tensors, or one tensor, requantized; any of them int8 or int16.
 *
 * a        int8 or int16 [count]
 * b        int8 or int16 [count], or NULL
 * output   int8 or int16 [count]; may be written over a or b of no fewer bytes
 *
 *   acc = a * a_multiplier + b * b_multiplier + bias
 *   output = requantize(acc), saturated to [low, high]
 *
 * bias has both zero_points folded in. The sum lies within int32.
 * Reference: Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx2_wide.h"

QCC_INLINE void add_all(const int a_bytes, const int b_bytes, const qcc_avx2_wide_add_params *p, const void *a,
                        const void *b, void *output) {
  const qcc_wide_output o = qcc_wide_saturation(p->low, p->high, 1, p->output_bytes);
  const qcc_wide_scale scale =
      qcc_wide_scale_of(_mm256_set1_epi32(p->multiplier), _mm256_set1_epi32(p->shift), p->output_zero_point);
  const qcc_wide_scale scales[2] = {scale, scale};
  const __m256i bias = _mm256_set1_epi32(p->bias);
  const int32_t count = p->count;
  int32_t factors[2][16];
  for (int i = 0; i < 16; ++i) {
    factors[0][i] = p->a_multiplier;
    factors[1][i] = p->b_multiplier;
  }
  for (int32_t i = 0; i < count; i += 16) {
    const int32_t left = count - i;
    __m256i sums[2] = {bias, bias};
    qcc_wide_add(2, sums, qcc_wide_loads(a, i, a_bytes, left), factors[0]);
    if (b) {
      qcc_wide_add(2, sums, qcc_wide_loads(b, i, b_bytes, left), factors[1]);
    }
    qcc_wide_put(2, sums, scales, &o, output, i, left);
  }
}

void qcc_s16_add_avx2(const qcc_avx2_wide_add_params *params, const void *a, const void *b, void *output) {
  if (params->a_bytes == 2 && params->b_bytes == 2) {
    add_all(2, 2, params, a, b, output);
  } else if (params->a_bytes == 2) {
    add_all(2, 1, params, a, b, output);
  } else if (params->b_bytes == 2) {
    add_all(1, 2, params, a, b, output);
  } else {
    add_all(1, 1, params, a, b, output);
  }
}
