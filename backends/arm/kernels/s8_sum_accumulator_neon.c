/* s8_sum_accumulator_neon: sum or mean over neighbouring axes that leaves its int32 accumulators in memory.
 *
 *   output[n][c] = bias + sum over i of input[n][i][c]
 *
 * input   int8[batch][count][channels]
 * output  int32[batch][channels]; does not overlap input
 *
 * Accumulator: int32; fewer than 2^23 elements are added.
 * Reference: ReduceSum.int_ref, ReduceMean.int_ref.
 */
#include "qcc_neon_sum.h"

void qcc_s8_sum_accumulator_neon(const qcc_neon_sum_params *params, const int8_t *QCC_RESTRICT input,
                                 int32_t *QCC_RESTRICT output) {
  const int32_t count = params->count, channels = params->channels;
  const int32x4_t start = vdupq_n_s32(params->bias);
  for (int32_t n = 0; n < params->batch; ++n, input += (ptrdiff_t)count * channels, output += channels) {
    for (int32_t c = 0; c < channels; c += 16) {
      const int32_t width = channels - c;
      int32x4_t acc[4] = {start, start, start, start};
      if (width >= 16) {
        qcc_add_pixels(acc, input + c, channels, count, 16);
      } else {
        qcc_add_pixels(acc, input + c, channels, count, width);
      }
      qcc_store_sums(4, output + c, acc, width);
    }
  }
}
