/* s8_max_pool2d_neon: output[n][i][j][c] = largest element of the window that lies on the image.
 *
 * input   int8[batch][input_height][input_width][channels]
 * output  int8[batch][output_height][output_width][channels]; does not overlap input
 *
 * Each window holds an element of the image.
 * Reference: MaxPool2d.int_ref.
 */
#include "qcc_neon.h"
#include "qcc_window.h"

/* Rows and columns of a window, `row_step` and `step` bytes apart. */
typedef struct {
  ptrdiff_t row_step, step;
  int32_t rows, columns;
} window;

QCC_INLINE int8x16_t largest_16(const window *at, const int8_t *row, int32_t width) {
  int8x16_t largest = vdupq_n_s8(-128);
  for (int32_t a = 0; a < at->rows; ++a, row += at->row_step) {
    const int8_t *x = row;
    for (int32_t b = 0; b < at->columns; ++b, x += at->step) {
      largest = vmaxq_s8(largest, qcc_load_bytes(x, width));
    }
  }
  return largest;
}

void qcc_s8_max_pool2d_neon(const qcc_max_pool2d_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output) {
  const qcc_max_pool2d_params *p = params;
  const ptrdiff_t line = (ptrdiff_t)p->input_width * p->channels;
  window at;
  at.row_step = line * p->dilation_height;
  at.step = (ptrdiff_t)p->channels * p->dilation_width;
  for (int32_t n = 0; n < p->batch; ++n, input += line * p->input_height) {
    for (int32_t i = 0; i < p->output_height; ++i) {
      const int32_t top = i * p->stride_height - p->pad_top;
      const qcc_range rows = qcc_taps_inside(top, p->kernel_height, p->dilation_height, p->input_height);
      at.rows = rows.count;
      for (int32_t j = 0; j < p->output_width; ++j, output += p->channels) {
        const int32_t left = j * p->stride_width - p->pad_left;
        const qcc_range columns = qcc_taps_inside(left, p->kernel_width, p->dilation_width, p->input_width);
        const int8_t *corner = input + (top + rows.first * p->dilation_height) * line +
                               (ptrdiff_t)(left + columns.first * p->dilation_width) * p->channels;
        int32_t c = 0;
        at.columns = columns.count;
        for (; c + 16 <= p->channels; c += 16) {
          vst1q_s8(output + c, largest_16(&at, corner + c, 16));
        }
        if (c < p->channels) {
          qcc_store_few(output + c, largest_16(&at, corner + c, p->channels - c), p->channels - c);
        }
      }
    }
  }
}
