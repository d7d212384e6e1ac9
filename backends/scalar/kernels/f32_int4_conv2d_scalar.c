/* f32_int4_conv2d_scalar: float convolution with weights of 4 bits, two in a byte.
 *
 * Row r holds weight 2 r of each channel in the low halves of its bytes and weight 2 r + 1 in the high ones; two's complement
 * in [-7, 7].
 */
#include "qcc_float.h"

typedef uint8_t qcc_code;
#define QCC_ROWS(filter) (((filter) + 1) / 2)

static inline void decode(const qcc_code *QCC_RESTRICT block, int32_t k, const float *QCC_RESTRICT scale,
                          int32_t width, float *QCC_RESTRICT w) {
  const qcc_code *row = block + (ptrdiff_t)(k / 2) * width;
  const int32_t shift = k % 2 * 4;
  for (int32_t o = 0; o < width; ++o) {
    w[o] = (float)((((row[o] >> shift) & 15) ^ 8) - 8) * scale[o];
  }
}

#include "qcc_stored_conv2d.h"

void qcc_f32_int4_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const uint8_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output) {
  stored_conv2d(params, input, weights, scale, bias, output);
}
