/* The padded image in the workspace. */
#ifndef QCC_NEON_IMAGE_H
#define QCC_NEON_IMAGE_H

#include "qcc_neon.h"

QCC_INLINE void qcc_fill(int8_t *to, int32_t value, ptrdiff_t count) {
  const int8x16_t v = vdupq_n_s8((int8_t)value);
  if (count >= 16) {
    const ptrdiff_t last = count - 16;
    for (ptrdiff_t i = 0; i < last; i += 16) {
      vst1q_s8(to + i, v);
    }
    vst1q_s8(to + last, v); /* overlaps the one before */
  } else {
    qcc_store_few(to, v, (int32_t)count);
  }
}

QCC_INLINE void qcc_copy(int8_t *to, const int8_t *from, ptrdiff_t count) {
  if (count >= 16) {
    const ptrdiff_t last = count - 16;
    ptrdiff_t i = 0;
    for (; i + 64 <= count; i += 64) {
      vst1q_s8_x4(to + i, vld1q_s8_x4(from + i));
    }
    for (; i < last; i += 16) {
      vst1q_s8(to + i, vld1q_s8(from + i));
    }
    vst1q_s8(to + last, vld1q_s8(from + last));
  } else {
    for (ptrdiff_t i = 0; i < count; ++i) {
      to[i] = from[i];
    }
  }
}

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
