/* Float to int16: output[i] = saturate(round_half_even(input[i] / scale)).
 *
 * input float[count], output int16[count]. The division is rounded to float32, as in ONNX QuantizeLinear. Infinities
 * saturate; NaN becomes 0.
 * Reference: quantize in qcc/ir/fixedpoint.py.
 */
#include "qcc_wide.h"

static int16_t quantize(float ratio) {
  int32_t whole;
  float rest;
  if (!(ratio > -32768.0f)) {
    return ratio <= -32768.0f ? (int16_t)-32768 : (int16_t)0;
  }
  if (ratio >= 32767.0f) {
    return 32767;
  }
  whole = (int32_t)ratio;      /* toward zero */
  rest = ratio - (float)whole; /* exact */
  if (rest > 0.5f || (rest == 0.5f && (whole & 1) != 0)) {
    ++whole;
  } else if (rest < -0.5f || (rest == -0.5f && (whole & 1) != 0)) {
    --whole;
  }
  return (int16_t)whole;
}

void qcc_f32_quantize_wide_scalar(const qcc_wide_quantize_params *params, const float *QCC_RESTRICT input,
                                  int16_t *QCC_RESTRICT output) {
  for (int32_t i = 0; i < params->count; ++i) {
    output[i] = quantize(input[i] / params->scale);
  }
}
