/* s8_conv2d_mve: see qcc_mve_conv2d.h. */
#include "qcc_mve_conv2d.h"

void qcc_s8_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params *p = params;
  const int32_t taps = p->kernel_height * p->kernel_width * p->input_channels;
  const layer l = {weights, channels, skip_multiplier, (taps + VECTOR - 1) / VECTOR, p->output_channels, p->low, p->high};
  convolve(p, &l, input, skip, output, (int8_t *)workspace);
}

void qcc_s8_conv2d_short_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                             const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output) {
  const qcc_dsp_conv2d_params *p = params;
  const int32_t taps = p->kernel_height * p->kernel_width * p->input_channels;
  const layer l = {weights, channels, skip_multiplier, (taps + VECTOR - 1) / VECTOR, p->output_channels, p->low, p->high};
  int8_t columns[2 * SHORT];
  convolve(p, &l, input, skip, output, taps > SHORT ? NULL : columns);
}
