/* What wide_conv2d_scalar and s4_conv2d_scalar share: up to four filters at one output pixel, with int8 or int16 input.
 *
 * The products add up in int32 over runs of QCC_WIDE_RUN, the runs in int64.
 */
#ifndef QCC_WIDE_CONV2D_H
#define QCC_WIDE_CONV2D_H

#include "qcc_wide.h"

/* sums[j] += sum x[i] * rows[j][i], count <= QCC_WIDE_RUN. Four filters share each load of the input. */
#define DEFINE_ADD_RUN(name, element)                                                                             \
  static inline void name(const element *QCC_RESTRICT x, const int8_t *const *rows, ptrdiff_t offset, ptrdiff_t count,    \
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
static inline void add_products(const void *x, ptrdiff_t at, int32_t bytes, const int8_t *const *rows, ptrdiff_t offset,
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
static inline void add_padding(int32_t pad_value, const int8_t *const *rows, ptrdiff_t offset, ptrdiff_t count,
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
static inline int32_t first_inside(int32_t position, int32_t dilation, int32_t taps) {
  const int32_t first = position < 0 ? (-position + dilation - 1) / dilation : 0;
  return first < taps ? first : taps;
}

/* One past the last tap before `size`; at least `first`. */
static inline int32_t end_inside(int32_t position, int32_t dilation, int32_t taps, int32_t size, int32_t first) {
  const int32_t end = position < size ? (size - position + dilation - 1) / dilation : 0;
  return end < first ? first : (end < taps ? end : taps);
}

/* sums[j] += the products of filter rows[j], which belongs to `group`, at pixel (oy, ox) of image n. */
static inline void add_pixel(const qcc_wide_conv2d_params *p, const void *input, int32_t n, int32_t oy, int32_t ox,
                             int32_t group, const int8_t *const *rows, int64_t *sums) {
  const ptrdiff_t tap = p->input_channels / p->groups;
  const ptrdiff_t kernel_row = (ptrdiff_t)p->kernel_width * tap;
  const int32_t y0 = oy * p->stride_height - p->pad_top;
  const int32_t x0 = ox * p->stride_width - p->pad_left;
  const int32_t a_first = first_inside(y0, p->dilation_height, p->kernel_height);
  const int32_t a_end = end_inside(y0, p->dilation_height, p->kernel_height, p->input_height, a_first);
  const int32_t b_first = first_inside(x0, p->dilation_width, p->kernel_width);
  const int32_t b_end = end_inside(x0, p->dilation_width, p->kernel_width, p->input_width, b_first);
  /* taps of one dot product: a whole kernel row where it is contiguous in input and weights */
  const int32_t run = p->dilation_width == 1 && p->groups == 1 ? b_end - b_first : 1;

  add_padding(p->pad_value, rows, 0, a_first * kernel_row, sums);
  for (int32_t a = a_first; a < a_end; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    const ptrdiff_t line = ((ptrdiff_t)n * p->input_height + y) * p->input_width;
    const ptrdiff_t row = a * kernel_row;
    add_padding(p->pad_value, rows, row, b_first * tap, sums);
    for (int32_t b = b_first; b < b_end; b += run) {
      const ptrdiff_t pixel = line + x0 + b * p->dilation_width;
      add_products(input, pixel * p->input_channels + group * tap, p->input_bytes, rows, row + b * tap, run * tap,
                   sums);
    }
    add_padding(p->pad_value, rows, row + b_end * tap, (p->kernel_width - b_end) * tap, sums);
  }
  add_padding(p->pad_value, rows, a_end * kernel_row, (p->kernel_height - a_end) * kernel_row, sums);
}

/* Add the residual operand to `acc` of channel o, requantize and store it; `at`: element of the output. */
static inline void write_output(const qcc_wide_conv2d_params *p, int64_t acc, int32_t o, ptrdiff_t at,
                                const void *skip, const int32_t *skip_multiplier, const int32_t *multiplier,
                                const int32_t *shift, void *output) {
  if (skip) {
    acc += (int64_t)(qcc_wide_load(skip, at, p->skip_bytes) - p->skip_zero_point) * skip_multiplier[o];
  }
  qcc_wide_store(output, at, p->output_bytes, acc, multiplier[o], shift[o], p->output_zero_point, p->low, p->high);
}

#endif
