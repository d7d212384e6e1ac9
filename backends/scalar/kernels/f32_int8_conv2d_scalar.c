/* f32_int8_conv2d_scalar: float convolution with weights of 8 bits. */
#include "qcc_float.h"

typedef int8_t qcc_code;
#define QCC_ROWS(filter) (filter)

static inline void decode(const qcc_code *QCC_RESTRICT block, int32_t k, const float *QCC_RESTRICT scale,
                          int32_t width, float *QCC_RESTRICT w) {
  const qcc_code *row = block + (ptrdiff_t)k * width;
  for (int32_t o = 0; o < width; ++o) {
    w[o] = (float)row[o] * scale[o];
  }
}

#include "qcc_stored_conv2d.h"

void qcc_f32_int8_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const int8_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output) {
  stored_conv2d(params, input, weights, scale, bias, output);
}
