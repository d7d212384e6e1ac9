/* s8_conv2d_dsp: see qcc_dsp_conv2d.h. */
#include "qcc_dsp_conv2d.h"

void qcc_s8_conv2d_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace) {
  convolve(params, input, skip, weights, channels, skip_multiplier, output, (uint32_t *)workspace);
}

void qcc_s8_conv2d_short_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                             const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output) {
  uint32_t columns[SHORT / 4 * QUAD];
  convolve(params, input, skip, weights, channels, skip_multiplier, output, columns);
}
