/* Float to int8: output[i] = saturate(round_half_even(input[i] / scale) + zero_point).
 *
 * input float[count], output int8[count]. The division is rounded to float32, as in ONNX QuantizeLinear. Infinities
 * saturate; NaN becomes zero_point, the code of 0.
 * Reference: quantize in qcc/ir/fixedpoint.py.
 */
#include "qcc_integer.h"

/* Beyond +-1024 every zero_point saturates, and below that the conversion to int32 is defined. */
static int8_t quantize(float ratio, int32_t zero_point) {
  int32_t whole, code;
  float rest;
  if (!(ratio > -1024.0f)) {
    return ratio <= -1024.0f ? (int8_t)-128 : (int8_t)zero_point;
  }
  if (ratio > 1024.0f) {
    return 127;
  }
  whole = (int32_t)ratio;        /* toward zero */
  rest = ratio - (float)whole;   /* exact */
  if (rest > 0.5f || (rest == 0.5f && (whole & 1) != 0)) {
    ++whole;
  } else if (rest < -0.5f || (rest == -0.5f && (whole & 1) != 0)) {
    --whole;
  }
  code = whole + zero_point;
  code = code < -128 ? -128 : code;
  return (int8_t)(code > 127 ? 127 : code);
}

void qcc_f32_quantize_scalar(const qcc_quantize_params *params, const float *QCC_RESTRICT input,
                             int8_t *QCC_RESTRICT output) {
  const float scale = params->scale;
  for (int32_t i = 0; i < params->count; ++i) {
    output[i] = quantize(input[i] / scale, params->zero_point);
  }
}
