/* s8_depthwise_conv2d_avx2: depthwise convolution with AVX2 (vpmaddwd). Layouts and reference: qcc_avx2_depthwise.h. */
#include "qcc_dot_avx2.h"

#include "qcc_avx2_depthwise.h"

void qcc_s8_depthwise_conv2d_avx2(const qcc_avx2_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                  const int8_t *skip, const int16_t *QCC_RESTRICT weights,
                                  const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                  const float *QCC_RESTRICT scale, int8_t *output, void *workspace) {
  qcc_depthwise_conv2d(params, input, skip, weights, bias, skip_multiplier, scale, output, (int8_t *)workspace);
}
