/* s8_depthwise_conv2d_dsp: see qcc_dsp_depthwise.h. */
#include "qcc_dsp_depthwise.h"

void qcc_s8_depthwise_conv2d_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace) {
  convolve_images(params, input, weights, channels, output, workspace);
}
