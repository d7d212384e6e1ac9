/* s8_sum_accumulator_avx512vnni: sum or mean over neighbouring axes that leaves its int32 accumulators in memory.
 *
 *   output[n][c] = bias + sum over i of input[n][i][c]
 *
 * input   int8[batch][count][channels]
 * output  int32[batch][channels]; does not overlap input
 *
 * Accumulator: int32; fewer than 2^23 elements are added. The sums of x + 128 on the way wrap around.
 * Reference: ReduceSum.int_ref, ReduceMean.int_ref.
 */
#include "qcc_avx512_lanes.h"

void qcc_s8_sum_accumulator_avx512vnni(const qcc_avx512_sum_params *params, const int8_t *QCC_RESTRICT input,
                                       int32_t *QCC_RESTRICT output) {
  const int32_t count = params->count, channels = params->channels;
  const __m512i start = _mm512_set1_epi32(params->bias - 128 * count);
  for (int32_t n = 0; n < params->batch; ++n, input += (ptrdiff_t)count * channels, output += channels) {
    for (int32_t c = 0; c < channels; c += 64) {
      const int32_t width = channels - c < 64 ? channels - c : 64;
      __m512i acc[4] = {start, start, start, start};
      int32_t sums[4][16];
      qcc_lanes_sum(acc, input + c, channels, count, qcc_first_lanes(width));
      QCC_UNROLL
      for (int j = 0; j < 4; ++j) {
        _mm512_storeu_si512(sums[j], acc[j]);
      }
      for (int32_t i = 0; i < width; ++i) {
        output[c + i] = sums[i / 4 % 4][i / 16 * 4 + i % 4];
      }
    }
  }
}
