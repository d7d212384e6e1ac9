/* Int8 to float: output[i] = (input[i] - zero_point) * scale; the difference is exact, the product rounded once.
 *
 * input int8[count], output float[count].
 * Reference: dequantize in qcc/ir/fixedpoint.py.
 */
#include "qcc_integer.h"

void qcc_s8_dequantize_scalar(const qcc_quantize_params *params, const int8_t *QCC_RESTRICT input,
                              float *QCC_RESTRICT output) {
  const int32_t zero_point = params->zero_point;
  const float scale = params->scale;
  for (int32_t i = 0; i < params->count; ++i) {
    output[i] = (float)(input[i] - zero_point) * scale;
  }
}
