/* Int16 to float: output[i] = input[i] * scale, in float32.
 *
 * input int16[count], output float[count].
 * Reference: dequantize in qcc/ir/fixedpoint.py.
 */
#include "qcc_wide.h"

void qcc_s16_dequantize_scalar(const qcc_wide_quantize_params *params, const int16_t *QCC_RESTRICT input,
                               float *QCC_RESTRICT output) {
  for (int32_t i = 0; i < params->count; ++i) {
    output[i] = (float)input[i] * params->scale;
  }
}
