/* f32_int4_conv2d_scalar: float convolution with weights of 4 bits, two in a byte.
 *
 * A row is uint8[(channels of the block + 1) / 2], the low half of a byte first; two's complement in [-7, 7].
 */
#include "qcc_float.h"

typedef uint8_t qcc_code;
#define QCC_ROW(width) (((width) + 1) / 2)

static inline void decode(const qcc_code *QCC_RESTRICT row, const float *QCC_RESTRICT scale, int32_t width,
                          float *QCC_RESTRICT w) {
  for (int32_t o = 0; o < width; ++o) {
    const int32_t half = (row[o / 2] >> (o % 2 * 4)) & 15;
    w[o] = (float)((half ^ 8) - 8) * scale[o];
  }
}

#include "qcc_stored_conv2d.h"

void qcc_f32_int4_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const uint8_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output) {
  stored_conv2d(params, input, weights, scale, bias, output);
}
