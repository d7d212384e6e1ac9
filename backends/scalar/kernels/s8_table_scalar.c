/* Any function of one int8: output[r][c] = table[c][input[r][c] + 128].
 *
 * input, output: int8[rows][channels]; they may be the same. table: int8[channels][256].
 * Reference: Table.int_ref in qcc/ir/ops/quant.py.
 */
#include "qcc_integer.h"

void qcc_s8_table_scalar(const qcc_table_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                         int8_t *output) {
  if (params->channels == 1) {
    for (int32_t r = 0; r < params->rows; ++r) {
      output[r] = table[input[r] + 128];
    }
    return;
  }
  for (int32_t r = 0; r < params->rows; ++r) {
    for (int32_t c = 0; c < params->channels; ++c) {
      output[c] = table[(ptrdiff_t)c * 256 + input[c] + 128];
    }
    input += params->channels;
    output += params->channels;
  }
}
