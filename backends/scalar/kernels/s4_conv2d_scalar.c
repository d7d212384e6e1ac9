/* s4_conv2d_scalar: 2-D convolution with weights of 4 bits, two in a byte; activations of 8 or 16 bits.
 *
 * input    int8 or int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  uint8[output_channels][(kernel_size + 1) / 2], kernel_size = kernel_height * kernel_width * input_channels /
 *          groups in the order of wide_conv2d_scalar; the low half of a byte comes first; two's complement in [-7, 7]
 * bias     int64[output_channels], the zero_point of the input folded in
 * skip_multiplier  int32[output_channels], or NULL
 * multiplier, shift  int32[output_channels]
 * output   int8 or int16 [batch][output_height][output_width][output_channels]; may be written over skip
 * workspace  int8[4][kernel_size]: four filters are unpacked, then applied to every pixel
 *
 * The result is that of wide_conv2d_scalar.
 * Accumulator: int32 over runs of QCC_WIDE_RUN products, int64 over the runs.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide_conv2d.h"

static void unpack(const uint8_t *QCC_RESTRICT packed, ptrdiff_t count, int8_t *QCC_RESTRICT codes) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    const int32_t half = (packed[i / 2] >> (i % 2 * 4)) & 15;
    codes[i] = (int8_t)((half ^ 8) - 8);
  }
}

void qcc_s4_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                          const uint8_t *QCC_RESTRICT weights, const int64_t *QCC_RESTRICT bias,
                          const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                          const int32_t *QCC_RESTRICT shift, void *output, void *workspace) {
  const qcc_wide_conv2d_params p = *params;
  const int32_t group_outputs = p.output_channels / p.groups;
  const ptrdiff_t kernel_size = (ptrdiff_t)p.kernel_height * p.kernel_width * (p.input_channels / p.groups);
  int8_t *const filters = (int8_t *)workspace;
  int32_t count;
  for (int32_t o = 0; o < p.output_channels; o += count) {
    const int32_t group = o / group_outputs;
    const int32_t left_in_group = (group + 1) * group_outputs - o;
    const int8_t *rows[4];
    ptrdiff_t at = o;
    count = left_in_group < 4 ? left_in_group : 4;
    for (int32_t j = 0; j < 4; ++j) { /* the last channel stands in for those beyond the group */
      rows[j] = filters + (j < count ? j : count - 1) * kernel_size;
      if (j < count) {
        unpack(weights + (o + j) * ((kernel_size + 1) / 2), kernel_size, filters + j * kernel_size);
      }
    }
    for (int32_t n = 0; n < p.batch; ++n) {
      for (int32_t oy = 0; oy < p.output_height; ++oy) {
        for (int32_t ox = 0; ox < p.output_width; ++ox, at += p.output_channels) {
          int64_t sums[4];
          for (int32_t j = 0; j < 4; ++j) {
            sums[j] = bias[o + (j < count ? j : count - 1)];
          }
          add_pixel(&p, input, n, oy, ox, group, rows, sums);
          for (int32_t j = 0; j < count; ++j) {
            write_output(&p, sums[j], o + j, at + j, skip, skip_multiplier, multiplier, shift, output);
          }
        }
      }
    }
  }
}
