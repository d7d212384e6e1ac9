/* s8_softmax_pair_neon: softmax of two, by a table of their difference.
 *
 *   output[r][0] = table[input[r][0] - input[r][1] + 255], output[r][1] = table[input[r][1] - input[r][0] + 255]
 *
 * input, output: int8[rows][2]; they may be the same. table: int8[512], the last one unused. The table has more bytes than the
 * registers: differences come from vectors, results from memory.
 * Reference: Softmax.int_ref over two elements, which depends on their difference only.
 */
#include "qcc_neon.h"

void qcc_s8_softmax_pair_neon(const qcc_softmax_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                              int8_t *output) {
  const int8_t *middle = table + 255;
  int32_t r = 0;
  for (; r + 8 <= params->rows; r += 8, input += 16, output += 16) {
    const int8x8x2_t x = vld2_s8(input);
    int16_t difference[8];
    vst1q_s16(difference, vsubl_s8(x.val[0], x.val[1]));
    QCC_UNROLL
    for (int i = 0; i < 8; ++i) {
      output[2 * i] = middle[difference[i]];
      output[2 * i + 1] = middle[-difference[i]];
    }
  }
  for (; r < params->rows; ++r, input += 2, output += 2) {
    const int32_t difference = input[0] - input[1];
    output[0] = middle[difference];
    output[1] = middle[-difference];
  }
}
