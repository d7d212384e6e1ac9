/* s8_sum_accumulator_avx2: sum or mean over neighbouring axes that leaves its int32 accumulators in memory.
 *
 *   output[n][c] = bias + sum over i of input[n][i][c]
 *
 * input   int8[batch][count][channels]
 * output  int32[batch][channels]; does not overlap input
 *
 * Accumulator: int32; fewer than 2^23 elements are added.
 * Reference: ReduceSum.int_ref, ReduceMean.int_ref.
 */
#include "qcc_avx2_sum.h"

void qcc_s8_sum_accumulator_avx2(const qcc_avx2_sum_params *params, const int8_t *QCC_RESTRICT input,
                                 int32_t *QCC_RESTRICT output) {
  const int32_t count = params->count, channels = params->channels;
  const __m256i start = _mm256_set1_epi32(params->bias);
  for (int32_t n = 0; n < params->batch; ++n, input += (ptrdiff_t)count * channels, output += channels) {
    for (int32_t c = 0; c < channels; c += 16) {
      const int32_t width = channels - c < 16 ? channels - c : 16;
      __m256i acc[2] = {start, start};
      int32_t sums[16];
      qcc_sum(acc, input + c, channels, count, width);
      qcc_store(sums, _mm256_permute2x128_si256(acc[0], acc[1], 0x20));
      qcc_store(sums + 8, _mm256_permute2x128_si256(acc[0], acc[1], 0x31));
      for (int32_t i = 0; i < width; ++i) {
        output[c + i] = sums[i];
      }
    }
  }
}
