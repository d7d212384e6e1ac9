/* The padded image in the workspace. */
#ifndef QCC_NEON_IMAGE_H
#define QCC_NEON_IMAGE_H

#include "qcc_neon_copy.h"

/* The part of the padded image that the taps reach, height x width pixels. */
static void qcc_pad(const qcc_neon_conv2d_params *p, const int8_t *input, int8_t *to, int32_t height, int32_t width) {
  const ptrdiff_t c = p->input_channels;
  const int32_t left = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - left ? p->input_width : width - left;
  const int32_t right = width - left - inside;
  for (int32_t y = 0; y < height; ++y, to += width * c) {
    const int32_t row = y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_fill(to, p->pad_value, width * c);
      continue;
    }
    qcc_fill(to, p->pad_value, left * c);
    qcc_copy(to + left * c, input + (ptrdiff_t)row * p->input_width * c, inside * c);
    qcc_fill(to + (left + inside) * c, p->pad_value, right * c);
  }
}

#endif
