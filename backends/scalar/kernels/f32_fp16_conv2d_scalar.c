/* f32_fp16_conv2d_scalar: float convolution with weights of IEEE 754 binary16.
 *
 * The codes are the bits of finite numbers. With exponent and fraction where a float has them, what is missing is the
 * difference of the biases, a factor of 2^112: exact, for subnormal numbers too (where the processor does not flush them).
 * scale is NULL.
 */
#include "qcc_float.h"
#include "qcc_math.h"

#define TWO_TO_112 5192296858534827628530496329220096.0f

typedef uint16_t qcc_code;
#define QCC_ROWS(filter) (filter)

static inline void decode(const qcc_code *QCC_RESTRICT block, int32_t k, const float *scale, int32_t width,
                          float *QCC_RESTRICT w) {
  const qcc_code *row = block + (ptrdiff_t)k * width;
  (void)scale;
  for (int32_t o = 0; o < width; ++o) {
    const uint32_t bits = row[o];
    w[o] = qcc_float_of_bits((bits & 0x8000u) << 16 | (bits & 0x7fffu) << 13) * TWO_TO_112;
  }
}

#include "qcc_stored_conv2d.h"

void qcc_f32_fp16_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const uint16_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output) {
  stored_conv2d(params, input, weights, scale, bias, output);
}
