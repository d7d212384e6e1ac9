/* Rounding to codes of 8 bits, element by element: output[i] = scale * clamp(round_half_even(input[i] / scale), low, high).
 *
 * input, output: float[count]; they may be the same. low, high: the lowest and the highest code, minus the zero_point.
 * Reference: FakeQuant.float_ref in qcc/ir/ops/fake_quant.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

void qcc_f32_fake_quant_scalar(const qcc_f32_fake_quant_params *params, const float *input, float *output) {
  for (int32_t i = 0; i < params->count; ++i) {
    output[i] = params->scale * qcc_clamp_f32(qcc_rintf(input[i] / params->scale), params->low, params->high);
  }
}
