/* wide_conv2d_scalar: 2-D convolution with tensors of 8 or 16 bits, requantization and an optional residual operand.
 *
 * input    int8 or int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int8[output_channels][kernel_height][kernel_width][input_channels / groups]
 * bias     int64[output_channels], the zero_point of the input folded in
 * skip_multiplier  int32[output_channels], or NULL
 * multiplier, shift  int32[output_channels]
 * output   int8 or int16 [batch][output_height][output_width][output_channels]; may be written over skip
 *
 *   acc = bias[o] + sum w[o][a][b][c] * x'[...] + (skip - skip_zero_point) * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Any stride, dilation, padding and number of groups. A dense layer is a row of
 * pixels and filters of one tap.
 * Accumulator: int32 over runs of QCC_WIDE_RUN products, int64 over the runs.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide_conv2d.h"

void qcc_wide_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                            const int8_t *QCC_RESTRICT weights, const int64_t *QCC_RESTRICT bias,
                            const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                            const int32_t *QCC_RESTRICT shift, void *output) {
  const qcc_wide_conv2d_params p = *params;
  const int32_t group_outputs = p.output_channels / p.groups;
  const ptrdiff_t kernel_size = (ptrdiff_t)p.kernel_height * p.kernel_width * (p.input_channels / p.groups);
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ++ox) {
        for (int32_t o = 0; o < p.output_channels;) {
          const int32_t group = o / group_outputs;
          const int32_t left_in_group = (group + 1) * group_outputs - o;
          const int32_t count = left_in_group < 4 ? left_in_group : 4;
          const int8_t *rows[4];
          int64_t sums[4];
          for (int32_t j = 0; j < 4; ++j) { /* the last channel stands in for those beyond the group */
            const int32_t channel = o + (j < count ? j : count - 1);
            rows[j] = weights + channel * kernel_size;
            sums[j] = bias[channel];
          }
          add_pixel(&p, input, n, oy, ox, group, rows, sums);
          for (int32_t j = 0; j < count; ++j, ++o, ++at) {
            write_output(&p, sums[j], o, at, skip, skip_multiplier, multiplier, shift, output);
          }
        }
      }
    }
  }
}
