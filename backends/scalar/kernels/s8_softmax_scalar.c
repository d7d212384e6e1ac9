/* Int8 softmax over the last axis.
 *
 *   e[c] = table[max - input[r][c]], output[r][c] = min((256 e[c] + total / 2) / total, 255) - 128
 *
 * with the maximum and total = sum e over c. input, output: int8[rows][count]; they may be the same. table:
 * int32[256], 2^23 at 0 and falling. total is in 64 bits; total >= 2^23, so there is no division by 0.
 * Reference: Softmax.int_ref in qcc/ir/ops/softmax.py, which states the error.
 */
#include "qcc_integer.h"
#include "qcc_softmax.h"

void qcc_s8_softmax_scalar(const qcc_softmax_params *params, const int8_t *input,
                           const int32_t *QCC_RESTRICT table, int8_t *output) {
  const int32_t count = params->count;
  for (int32_t r = 0; r < params->rows; ++r, input += count, output += count) {
    int32_t largest = -128;
    int64_t total = 0;
    for (int32_t c = 0; c < count; ++c) {
      largest = input[c] > largest ? input[c] : largest;
    }
    for (int32_t c = 0; c < count; ++c) {
      total += table[largest - input[c]];
    }
    for (int32_t c = 0; c < count; ++c) {
      const int64_t part = (int64_t)table[largest - input[c]];
      output[c] = (int8_t)(qcc_divide_to_255(part * 256 + total / 2, total) - 128);
    }
  }
}
