/* wide_table_scalar: output = table[input + 128], for 8 bits in and 16 out.
 *
 * input: int8[rows][channels]; output: int16[rows][channels]; they do not overlap. table: int16[channels][256].
 * Reference: Table.int_ref in qcc/ir/ops/quant.py.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

void qcc_wide_table_scalar(const qcc_wide_table_params *params, const int8_t *QCC_RESTRICT input,
                           const int16_t *QCC_RESTRICT table, int16_t *QCC_RESTRICT output) {
  for (int32_t r = 0; r < params->rows; ++r) {
    for (int32_t c = 0; c < params->channels; ++c) {
      *output++ = table[(ptrdiff_t)c * 256 + *input++ + 128];
    }
  }
}
