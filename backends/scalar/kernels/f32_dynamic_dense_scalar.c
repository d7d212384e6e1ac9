/* f32_dynamic_dense_scalar: a dense layer of integers on floats that are quantized by the range they turn out to have.
 *
 *   q = saturate(round_half_even(x / s) + zp),  s = (max - min) / 255,  zp = saturate(round_half_even(-min / s)),
 *   output[r][n] = (float)(sum over k of (q[r][k] - zp) * w[n][k]) * (s * scale[n]) + bias[n]
 *
 * min and max are those of all inputs and 0. Where all are 0, s is 1. NaN has the code of 0; infinities saturate.
 *
 * input        float[rows][depth]
 * weights      int8[outputs][depth]
 * weight_sums  int32[outputs]: of each filter
 * scale        float[outputs]
 * bias         float[outputs] or NULL
 * output       float[rows][outputs]; overlaps nothing
 * workspace    uint8[rows][depth]: the codes
 *
 * Accumulator: int32. depth <= 65793, so sum q w, zp sum w and their difference stay within 255 * 128 * depth < 2^31.
 * Reference: DynamicDense.int_ref in qcc/ir/ops/stored.py, equal bit for bit where the compiler does not fuse a product
 * and a sum into one operation.
 */
#include "qcc_float.h"
#include "qcc_math.h"

#define QCC_LARGEST 3.402823466e+38f

static uint8_t code_of(float ratio, float zero_point) {
  const float code = qcc_rintf(ratio) + zero_point;
  if (!(code > 0.0f)) {
    return code <= 0.0f ? 0 : (uint8_t)zero_point; /* the latter for NaN */
  }
  return code < 255.0f ? (uint8_t)code : 255;
}

/* Writes the codes and the zero_point; returns the scale. */
static float quantize(const float *QCC_RESTRICT input, ptrdiff_t count, uint8_t *QCC_RESTRICT codes,
                      int32_t *zero_point) {
  float low = 0.0f, high = 0.0f, range, scale, zero;
  for (ptrdiff_t i = 0; i < count; ++i) {
    low = input[i] < low ? input[i] : low;
    high = input[i] > high ? input[i] : high;
  }
  low = low < -QCC_LARGEST ? -QCC_LARGEST : low;
  high = high > QCC_LARGEST ? QCC_LARGEST : high;
  range = high - low;
  scale = (range > QCC_LARGEST ? QCC_LARGEST : range) / 255.0f;
  if (scale == 0.0f) {
    scale = 1.0f;
    low = 0.0f;
  }
  zero = qcc_rintf(-low / scale);
  zero = zero > 255.0f ? 255.0f : zero;
  for (ptrdiff_t i = 0; i < count; ++i) {
    codes[i] = code_of(input[i] / scale, zero);
  }
  *zero_point = (int32_t)zero;
  return scale;
}

void qcc_f32_dynamic_dense_scalar(const qcc_f32_dynamic_dense_params *params, const float *QCC_RESTRICT input,
                                  const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT weight_sums,
                                  const float *QCC_RESTRICT scale, const float *QCC_RESTRICT bias,
                                  float *QCC_RESTRICT output, void *workspace) {
  const int32_t depth = params->depth;
  uint8_t *const codes = (uint8_t *)workspace;
  int32_t zero_point;
  const float input_scale = quantize(input, (ptrdiff_t)params->rows * depth, codes, &zero_point);
  for (int32_t r = 0; r < params->rows; ++r) {
    const uint8_t *x = codes + (ptrdiff_t)r * depth;
    const int8_t *w = weights;
    for (int32_t n = 0; n < params->outputs; ++n, w += depth) {
      const float factor = input_scale * scale[n];
      int32_t sum = 0;
      float y;
      for (int32_t k = 0; k < depth; ++k) {
        sum += x[k] * w[k];
      }
      y = (float)(sum - zero_point * weight_sums[n]) * factor;
      if (bias != NULL) {
        y += bias[n];
      }
      *output++ = y;
    }
  }
}
