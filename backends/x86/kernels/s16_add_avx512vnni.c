/* s16_add_avx512vnni: the sum of two tensors, or one tensor, requantized; any of them int8 or int16.
 *
 * a        int8 or int16 [count]
 * b        int8 or int16 [count], or NULL
 * output   int8 or int16 [count]; may be written over a or b of no fewer bytes
 *
 *   acc = a * a_multiplier + b * b_multiplier + bias
 *   output = requantize(acc), saturated to [low, high]
 *
 * bias has both zero_points folded in, plus 2^31. The sum lies within int32, and what it requantizes to below 2^29.
 * Reference: Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512_wide.h"

QCC_INLINE void add_all(const int a_bytes, const int b_bytes, const qcc_avx512_wide_add_params *p, const void *a,
                        const void *b, void *output) {
  const qcc_wide_output o = qcc_wide_saturation(p->output_zero_point, p->low, p->high, 1, p->output_bytes);
  const __m512i multiplier = _mm512_set1_epi32(p->multiplier), shift = _mm512_set1_epi32(p->shift);
  const __m512i bias = _mm512_set1_epi32(p->bias);
  const int32_t count = p->count;
  int32_t factors[2][32];
  double scale[32];
  for (int i = 0; i < 32; i += 16) {
    _mm512_storeu_si512(factors[0] + i, _mm512_set1_epi32(p->a_multiplier));
    _mm512_storeu_si512(factors[1] + i, _mm512_set1_epi32(p->b_multiplier));
    qcc_wide_scale((const int32_t *)&multiplier, (const int32_t *)&shift, scale + i);
  }
  for (int32_t i = 0; i < count; i += 32) {
    const __mmask32 lanes = qcc_wide_lanes(count - i);
    __m512i sums[2] = {bias, bias};
    qcc_wide_add_pair(sums, qcc_wide_loads(a, i, a_bytes, lanes), factors[0]);
    if (b) {
      qcc_wide_add_pair(sums, qcc_wide_loads(b, i, b_bytes, lanes), factors[1]);
    }
    qcc_wide_finish_pair(sums[0], sums[1], scale, output, i, lanes, &o);
  }
}

void qcc_s16_add_avx512vnni(const qcc_avx512_wide_add_params *params, const void *a, const void *b, void *output) {
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
