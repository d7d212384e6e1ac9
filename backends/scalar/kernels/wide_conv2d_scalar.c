/* wide_conv2d_scalar: 2-D convolution with tensors of 8 or 16 bits, requantization and an optional residual operand.
 *
 * input    int8 or int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, shape of the output, or NULL
 * weights  int8[output_channels][kernel_height][kernel_width][input_channels / groups], within [-127, 127]
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
#include "qcc_wide.h"

/* sums[j] += sum x[i] * rows[j][i], count <= QCC_WIDE_RUN. Four filters share each load of the input. */
#define DEFINE_ADD_RUN(name, element)                                                                             \
  static void name(const element *QCC_RESTRICT x, const int8_t *const *rows, ptrdiff_t offset, ptrdiff_t count,    \
                   int64_t *sums) {                                                                               \
    const int8_t *QCC_RESTRICT w0 = rows[0] + offset;                                                             \
    const int8_t *QCC_RESTRICT w1 = rows[1] + offset;                                                             \
    const int8_t *QCC_RESTRICT w2 = rows[2] + offset;                                                             \
    const int8_t *QCC_RESTRICT w3 = rows[3] + offset;                                                             \
    int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;                                                               \
    for (ptrdiff_t i = 0; i < count; ++i) {                                                                       \
      const int32_t value = x[i];                                                                                 \
      sum0 += value * w0[i];                                                                                      \
      sum1 += value * w1[i];                                                                                      \
      sum2 += value * w2[i];                                                                                      \
      sum3 += value * w3[i];                                                                                      \
    }                                                                                                             \
    sums[0] += sum0;                                                                                              \
    sums[1] += sum1;                                                                                              \
    sums[2] += sum2;                                                                                              \
    sums[3] += sum3;                                                                                              \
  }

DEFINE_ADD_RUN(add_run_s8, int8_t)
DEFINE_ADD_RUN(add_run_s16, int16_t)

/* sums[j] += sum x[at + i] * rows[j][offset + i] */
static void add_products(const void *x, ptrdiff_t at, int32_t bytes, const int8_t *const *rows, ptrdiff_t offset,
                         ptrdiff_t count, int64_t *sums) {
  for (ptrdiff_t i = 0; i < count; i += QCC_WIDE_RUN) {
    const ptrdiff_t run = count - i < QCC_WIDE_RUN ? count - i : QCC_WIDE_RUN;
    if (bytes == 2) {
      add_run_s16((const int16_t *)x + at + i, rows, offset + i, run, sums);
    } else {
      add_run_s8((const int8_t *)x + at + i, rows, offset + i, run, sums);
    }
  }
}

/* The same with pad_value in place of x[i]. */
static void add_padding(int32_t pad_value, const int8_t *const *rows, ptrdiff_t offset, ptrdiff_t count,
                        int64_t *sums) {
  for (int j = 0; pad_value != 0 && j < 4; ++j) {
    int64_t sum = 0;
    for (ptrdiff_t i = 0; i < count; ++i) {
      sum += rows[j][offset + i];
    }
    sums[j] += pad_value * sum;
  }
}

/* First tap at or after position 0, given the position of tap 0; at most `taps`. */
static int32_t first_inside(int32_t position, int32_t dilation, int32_t taps) {
  const int32_t first = position < 0 ? (-position + dilation - 1) / dilation : 0;
  return first < taps ? first : taps;
}

/* One past the last tap before `size`; at least `first`. */
static int32_t end_inside(int32_t position, int32_t dilation, int32_t taps, int32_t size, int32_t first) {
  const int32_t end = position < size ? (size - position + dilation - 1) / dilation : 0;
  return end < first ? first : (end < taps ? end : taps);
}

void qcc_wide_conv2d_scalar(const qcc_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                            const int8_t *QCC_RESTRICT weights, const int64_t *QCC_RESTRICT bias,
                            const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                            const int32_t *QCC_RESTRICT shift, void *output) {
  const qcc_wide_conv2d_params p = *params;
  const int32_t group_outputs = p.output_channels / p.groups;
  const ptrdiff_t tap = p.input_channels / p.groups;
  const ptrdiff_t kernel_row = (ptrdiff_t)p.kernel_width * tap;
  const ptrdiff_t kernel_size = (ptrdiff_t)p.kernel_height * kernel_row;
  const ptrdiff_t input_row = (ptrdiff_t)p.input_width * p.input_channels;
  const int contiguous = p.dilation_width == 1 && p.groups == 1;
  ptrdiff_t at = 0;

  for (int32_t n = 0; n < p.batch; ++n) {
    const ptrdiff_t image = (ptrdiff_t)n * p.input_height * input_row;
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      const int32_t y0 = oy * p.stride_height - p.pad_top;
      const int32_t a_first = first_inside(y0, p.dilation_height, p.kernel_height);
      const int32_t a_end = end_inside(y0, p.dilation_height, p.kernel_height, p.input_height, a_first);
      for (int32_t ox = 0; ox < p.output_width; ++ox) {
        const int32_t x0 = ox * p.stride_width - p.pad_left;
        const int32_t b_first = first_inside(x0, p.dilation_width, p.kernel_width);
        const int32_t b_end = end_inside(x0, p.dilation_width, p.kernel_width, p.input_width, b_first);
        const int32_t run = contiguous ? b_end - b_first : 1; /* taps of one dot product */
        const ptrdiff_t left = b_first * tap, right = (p.kernel_width - b_end) * tap;

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

          add_padding(p.pad_value, rows, 0, a_first * kernel_row, sums);
          for (int32_t a = a_first; a < a_end; ++a) {
            const int32_t y = y0 + a * p.dilation_height;
            const ptrdiff_t line = image + y * input_row + group * tap;
            const ptrdiff_t row = a * kernel_row;
            add_padding(p.pad_value, rows, row, left, sums);
            for (int32_t b = b_first; b < b_end; b += run) {
              const ptrdiff_t x = line + (ptrdiff_t)(x0 + b * p.dilation_width) * p.input_channels;
              add_products(input, x, p.input_bytes, rows, row + b * tap, run * tap, sums);
            }
            add_padding(p.pad_value, rows, row + b_end * tap, right, sums);
          }
          add_padding(p.pad_value, rows, a_end * kernel_row, (p.kernel_height - a_end) * kernel_row, sums);

          for (int32_t j = 0; j < count; ++j, ++o, ++at) {
            int64_t acc = sums[j];
            if (skip) {
              acc += (int64_t)(qcc_wide_load(skip, at, p.skip_bytes) - p.skip_zero_point) * skip_multiplier[o];
            }
            qcc_wide_store(output, at, p.output_bytes, acc, multiplier[o], shift[o], p.output_zero_point, p.low,
                           p.high);
          }
        }
      }
    }
  }
}
